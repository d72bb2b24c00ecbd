"""PaliGemma's configuration, read from a checkpoint's config.json.

What a checkpoint leaves out has the value that transformers gives it
(`models/{paligemma,gemma,gemma2,siglip}/configuration_*.py`).
"""

from dataclasses import dataclass
from typing import Any

from mmcli.errors import ModelError
from mmcli.layers.gemma import DecoderConfig
from mmcli.layers.siglip import SiglipConfig

# The published tables are filled up to a multiple of this many rows, behind the image token.
TABLE_BLOCK = 64

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
    "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2,
}  # fmt: skip
GEMMA2 = GEMMA | {
    "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26, "num_attention_heads": 8,
    "num_key_value_heads": 4, "query_pre_attn_scalar": 256, "sliding_window": 4096,
    "final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0,
}  # fmt: skip
SIGLIP = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "image_size": 224, "patch_size": 16, "layer_norm_eps": 1e-6,
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
        """Read config.json. Raises ModelError for values that would change the computation but are not supported."""
        try:
            return cls._from_hf(raw)
        except (TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"This PaliGemma's config.json has a value of a wrong type ({error})") from error

    @classmethod
    def _from_hf(cls, raw: dict[str, Any]) -> "PaliGemmaConfig":
        text = dict(_given(raw, "text_config", ABSENT_TEXT))
        vision = _read_vision(_given(raw, "vision_config", ABSENT_VISION))
        kind = text.get("model_type", "gemma")
        if kind not in ("gemma", "gemma2"):
            raise ModelError(f"This PaliGemma has a text model of the type {kind!r}; known are gemma and gemma2")
        _require(raw, "tie_word_embeddings", (True, None))
        _require(text, "tie_word_embeddings", (True, None))
        text = (GEMMA if kind == "gemma" else GEMMA2) | text
        decoder = _read_decoder(text, second=kind == "gemma2")
        width = raw.get("projection_dim", 2048)
        if width != decoder.width:
            raise ModelError(
                f"This PaliGemma projects pictures to {width} numbers (projection_dim), "
                f"but its text model is {decoder.width} wide (hidden_size)"
            )
        image_token = raw.get("image_token_index", raw.get("image_token_id", 256000))
        stop = raw.get("eos_token_id", text["eos_token_id"])
        return cls(
            vision=vision,
            decoder=decoder,
            sliding_window=text["sliding_window"] if any(decoder.sliding_layers) else None,
            image_token=image_token,
            vocabulary_end=_vocabulary_end(decoder.vocabulary, image_token),
            pad=_first(raw.get("pad_token_id"), text["pad_token_id"], 0),
            bos=_first(raw.get("bos_token_id"), text["bos_token_id"], 2),
            stop_ids=frozenset(stop if isinstance(stop, list) else [stop]) - {None},
        )


def _vocabulary_end(rows: int, image_token: int) -> int:
    """The first id that is a filler row.

    In the published checkpoints the image token is the last real one and the table is filled up behind it, so
    everything from it on is noise. Where the image token stands elsewhere, nothing tells what is filler: all ids stay.
    """
    is_filled = rows % TABLE_BLOCK == 0 and 0 < rows - image_token <= TABLE_BLOCK
    return image_token if is_filled else rows


def _read_vision(raw: dict[str, Any]) -> SiglipConfig:
    _require(raw, "model_type", ("siglip_vision_model", None))
    _require(raw, "hidden_act", ("gelu_pytorch_tanh", None))
    _require(raw, "num_channels", (3, None))
    raw = SIGLIP | raw
    config = SiglipConfig(
        width=raw["hidden_size"],
        depth=raw["num_hidden_layers"],
        mlp_width=raw["intermediate_size"],
        heads=raw["num_attention_heads"],
        image_size=_square(raw["image_size"]),
        patch_size=_square(raw["patch_size"]),
        norm_epsilon=raw["layer_norm_eps"],
    )
    if config.patches < 1:
        raise ModelError(f"Patches of {config.patch_size} pixels do not fit into pictures of {config.image_size}")
    if config.width % config.heads:
        raise ModelError(f"The vision tower's {config.width} numbers cannot be split among {config.heads} heads")
    return config


def _square(side: int | list[int]) -> int:
    sides = set(side) if isinstance(side, list) else {side}
    if len(sides) != 1:
        raise ModelError(f"The vision tower takes pictures or patches of {side}; only squares are supported")
    return sides.pop()


def _read_decoder(text: dict[str, Any], second: bool) -> DecoderConfig:
    # "gelu" in old Gemma 1 files means the tanh form, by transformers' own reading.
    _require(text, "hidden_activation", ("gelu_pytorch_tanh", None))
    if not second:
        _require(text, "hidden_act", ("gelu_pytorch_tanh", "gelu", None))
    _require(text, "attention_bias", (False, None))
    depth = text["num_hidden_layers"]
    kinds = text.get("layer_types") or [("full" if i % 2 else "sliding") + "_attention" for i in range(depth)]
    if len(kinds) != depth or not set(kinds) <= {"full_attention", "sliding_attention"}:
        raise ModelError(f"This text model's layer_types are {kinds}; expected {depth} of full_ or sliding_attention")
    slides = second and text["sliding_window"] is not None
    return DecoderConfig(
        vocabulary=text["vocab_size"],
        width=text["hidden_size"],
        depth=depth,
        mlp_width=text["intermediate_size"],
        heads=text["num_attention_heads"],
        key_heads=text["num_key_value_heads"],
        head_width=text["head_dim"],
        query_scale=(text["query_pre_attn_scalar"] if second else text["head_dim"]) ** -0.5,
        rope_base=_rope_base(text),
        norm_epsilon=text["rms_norm_eps"],
        sandwich_norms=second,
        attention_softcap=text["attn_logit_softcapping"] if second else None,
        # transformers applies this one wherever the text configuration has it, Gemma 1 included.
        logit_softcap=text.get("final_logit_softcapping"),
        sliding_layers=tuple(kind == "sliding_attention" for kind in kinds) if slides else (),
    )


def _rope_base(text: dict[str, Any]) -> float:
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise ModelError(f"This text model stretches its positions ({kind!r} rope); only the plain kind is supported")
    return float(rope.get("rope_theta", text.get("rope_theta", 10_000.0)))


def _require(raw: dict[str, Any], key: str, accepted: tuple) -> None:
    if raw.get(key) not in accepted:
        raise ModelError(f"This PaliGemma's config.json sets {key} to {raw[key]!r}; supported is {accepted[0]!r}")


def _given(raw: dict[str, Any], key: str, otherwise: dict[str, Any]) -> dict[str, Any]:
    """A part of the configuration; one that is there but empty is not the same as one left out."""
    return otherwise if raw.get(key) is None else raw[key]


def _first(*values: int | None) -> int:
    return next(value for value in values if value is not None)
