"""PaliGemma's configuration, read from a checkpoint's config.json.

What a checkpoint leaves out has the value that transformers gives it
(`models/{paligemma,gemma,gemma2,siglip}/configuration_*.py`).
"""

from dataclasses import dataclass
from typing import Any

from mmcli.errors import ModelError
from mmcli.hub.fields import (
    DEPTH,
    EPSILON,
    HEAD_WIDTH,
    HEADS,
    ID,
    INNER,
    ROWS,
    WIDTH,
    Fields,
    shown,
)
from mmcli.layers.gemma import DecoderConfig
from mmcli.layers.siglip import SiglipConfig
from mmcli.models.siglip import SIGLIP, read_tower

# The published tables are filled up to a multiple of this many rows, behind the image token.
TABLE_BLOCK = 64

WINDOW = (1, 1 << 30)  # tokens

WHOLE = {"projection_dim": 2048, "image_token_id": 256000}
ABSENT_TEXT = {
    "model_type": "gemma", "hidden_size": 2048, "num_hidden_layers": 18, "intermediate_size": 16384,
    "num_attention_heads": 8, "num_key_value_heads": 1, "vocab_size": 257152,
}  # fmt: skip
ABSENT_VISION = {
    "hidden_size": 1152, "intermediate_size": 4096, "num_hidden_layers": 27, "num_attention_heads": 16,
    "image_size": 224, "patch_size": 14,
}  # fmt: skip
GEMMA = {
    "vocab_size": 256000, "hidden_size": 3072, "intermediate_size": 24576, "num_hidden_layers": 28,
    "num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 256, "rms_norm_eps": 1e-6,
    "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2, "rope_theta": 10_000.0,
}  # fmt: skip
GEMMA2 = GEMMA | {
    "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26, "num_attention_heads": 8,
    "num_key_value_heads": 4, "query_pre_attn_scalar": 256, "sliding_window": 4096,
    "final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0,
}  # fmt: skip


@dataclass(frozen=True)
class PaliGemmaConfig:
    """Everything about a PaliGemma 1 or 2 checkpoint that its config.json says."""

    vision: SiglipConfig
    decoder: DecoderConfig
    sliding_window: int | None  # in tokens; None where no layer has one
    image_token: int
    vocabulary_end: int  # ids from here on are rows that only fill the table up
    pad: int
    bos: int
    stop_ids: frozenset[int]

    @classmethod
    def from_hf(cls, raw: dict[str, Any]) -> "PaliGemmaConfig":
        """Read config.json. Raises ModelError for wrong values, and for those that mmcli does not support."""
        whole = Fields(raw, "This PaliGemma's config.json", WHOLE)
        text = whole.part("text_config", ABSENT_TEXT if "text_config" not in whole else {})
        vision = whole.part("vision_config", ABSENT_VISION if "vision_config" not in whole else {})
        kind = text.get("model_type") or "gemma"
        if kind not in ("gemma", "gemma2"):
            raise ModelError(f"This PaliGemma has a text model of the type {shown(kind)}; known are gemma and gemma2")
        whole.require("tie_word_embeddings", True, None)
        text.require("tie_word_embeddings", True, None)
        vision.otherwise = {**SIGLIP, **vision.otherwise}
        text.otherwise = {**(GEMMA if kind == "gemma" else GEMMA2), **text.otherwise}
        decoder = _read_decoder(text, second=kind == "gemma2")
        width = whole.whole("projection_dim", *WIDTH)
        if width != decoder.width:
            raise ModelError(
                f"This PaliGemma projects pictures to {width} numbers (projection_dim), "
                f"but its text model is {decoder.width} wide (hidden_size)"
            )
        pad, bos = (_row(whole, text, f"{name}_token_id", decoder.vocabulary) for name in ("pad", "bos"))
        key = "image_token_index" if "image_token_index" in whole else "image_token_id"
        image_token = whole.unlike(key, whole.whole(key, *ID), [pad, bos])
        return cls(
            vision=read_tower(vision, "siglip_vision_model"),
            decoder=decoder,
            sliding_window=text.whole("sliding_window", *WINDOW) if any(decoder.sliding_layers) else None,
            image_token=image_token,
            vocabulary_end=_vocabulary_end(decoder.vocabulary, image_token),
            pad=pad,
            bos=bos,
            stop_ids=whole.ids("eos_token_id") or text.ids("eos_token_id"),
        )


def _row(whole: Fields, text: Fields, key: str, rows: int) -> int:
    """A token of the whole's or else the text model's, which must have a row in the table."""
    return (whole if key in whole else text).whole(key, 0, rows - 1)


def _vocabulary_end(rows: int, image_token: int) -> int:
    """The first id that is a filler row.

    In the published checkpoints the image token is the last real one and the table is filled up behind it, so
    everything from it on is noise. Where the image token stands elsewhere, nothing tells what is filler: all ids stay.
    """
    is_filled = rows % TABLE_BLOCK == 0 and 0 < rows - image_token <= TABLE_BLOCK
    return image_token if is_filled else rows


def _read_decoder(text: Fields, second: bool) -> DecoderConfig:
    # "gelu" in old Gemma 1 files means the tanh form, by transformers' own reading.
    text.require("hidden_activation", "gelu_pytorch_tanh", None)
    if not second:
        text.require("hidden_act", "gelu_pytorch_tanh", "gelu", None)
    text.require("attention_bias", False, None)
    depth = text.whole("num_hidden_layers", *DEPTH)
    kinds = [("full" if i % 2 else "sliding") + "_attention" for i in range(depth)]
    if text.get("layer_types"):
        kinds = text.items("layer_types", longest=depth, length=depth)
    if not all(kind in ("full_attention", "sliding_attention") for kind in kinds):
        raise text.wrong("layer_types", f"a list of {depth} of full_ or sliding_attention")
    # Null is not the same as left out: a window of none is no window, and a score scale of none no cap.
    slides = second and text.raw.get("sliding_window", ...) is not None
    heads, key_heads = (text.whole(f"num_{part}_heads", *HEADS) for part in ("attention", "key_value"))
    if heads % key_heads:
        raise ModelError(f"This PaliGemma's {heads} heads cannot be split among {key_heads} for keys and values")
    head_width = text.whole("head_dim", *HEAD_WIDTH)
    if head_width % 2:
        raise text.wrong("head_dim", "an even number")
    return DecoderConfig(
        vocabulary=text.whole("vocab_size", *ROWS),
        width=text.whole("hidden_size", *WIDTH),
        depth=depth,
        mlp_width=text.whole("intermediate_size", *INNER),
        heads=heads,
        key_heads=key_heads,
        head_width=head_width,
        query_scale=(text.positive("query_pre_attn_scalar", 1e6) if second else head_width) ** -0.5,
        rope_base=_rope_base(text),
        norm_epsilon=text.number("rms_norm_eps", *EPSILON),
        sandwich_norms=second,
        attention_softcap=_softcap(text, "attn_logit_softcapping") if second else None,
        # transformers applies this one wherever the text configuration has it, Gemma 1 included.
        logit_softcap=_softcap(text, "final_logit_softcapping"),
        sliding_layers=tuple(kind == "sliding_attention" for kind in kinds) if slides else (),
    )


def _softcap(text: Fields, key: str) -> float | None:
    absent = text.get(key) is None or text.raw.get(key, ...) is None
    return None if absent else text.positive(key)


def _rope_base(text: Fields) -> float:
    key = "rope_parameters" if text.get("rope_parameters") else "rope_scaling"
    rope = text.part(key, {"rope_theta": text.get("rope_theta"), "type": "default"})
    kind = rope.get("rope_type") or rope.get("type")
    if kind != "default":
        raise ModelError(f"This text model stretches its positions ({shown(kind)} rope); only the plain kind is known")
    return rope.positive("rope_theta")
