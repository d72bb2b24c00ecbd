"""Fuyu's configuration, read from a checkpoint's config.json.

What a checkpoint leaves out has the value that transformers gives it
(`models/{fuyu,persimmon}/configuration_*.py`).
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from mmcli.errors import ModelError
from mmcli.hub.fields import DEPTH, EPSILON, HEADS, ID, INNER, ROWS, WIDTH, Fields, shown

WHOLE = {"image_token_id": 71011, "patch_size": 30, "num_channels": 3}
TEXT = {
    "vocab_size": 262144, "hidden_size": 4096, "intermediate_size": 16384, "num_hidden_layers": 36,
    "num_attention_heads": 64, "hidden_act": "relu2", "layer_norm_eps": 1e-5, "qk_layernorm": True,
    "tie_word_embeddings": False, "rope_theta": 10_000.0,
    "partial_rotary_factor": 0.5, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip

PATCH = (1, 256)  # pixels


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of a Persimmon decoder."""

    vocabulary: int
    width: int
    depth: int
    mlp_width: int
    heads: int
    turned: int  # numbers of a head that take part in the rotary positions; the others have none
    rope_base: float
    norm_epsilon: float
    head_norms: bool  # queries and keys are normalised
    window: ClassVar[int | None] = None  # every layer attends to all

    @property
    def head_width(self) -> int:
        return self.width // self.heads


@dataclass(frozen=True)
class FuyuConfig:
    """Everything about a Fuyu checkpoint that its config.json says."""

    decoder: DecoderConfig
    patch: int  # pixels of a patch's side
    image_token: int  # keeps the place of a patch
    pad: int
    bos: int
    stop_ids: frozenset[int]

    @property
    def patch_numbers(self) -> int:
        """Numbers of a patch: three for each pixel."""
        return 3 * self.patch**2

    @classmethod
    def from_hf(cls, raw: dict[str, Any]) -> "FuyuConfig":
        """Read config.json, where the decoder's settings stand apart (text_config) or, in older files, with the rest.

        Raises ModelError for wrong values, and for those that mmcli does not support.
        """
        whole = Fields(raw, "This Fuyu's config.json", WHOLE)
        if whole.get("text_config") is None:
            text = Fields(raw, whole.where, TEXT)
        else:
            text = whole.part("text_config", TEXT)
            text.require("model_type", "persimmon", None)
        whole.require("num_channels", 3, None)
        whole.require("tie_word_embeddings", False, None)
        decoder = _read_decoder(text)
        pad, bos = (text.whole(f"{name}_token_id", 0, decoder.vocabulary - 1) for name in ("pad", "bos"))
        return cls(
            decoder=decoder,
            patch=whole.whole("patch_size", *PATCH),
            image_token=whole.unlike("image_token_id", whole.whole("image_token_id", *ID), [pad, bos]),
            pad=pad,
            bos=bos,
            stop_ids=text.ids("eos_token_id"),
        )


def _read_decoder(text: Fields) -> DecoderConfig:
    text.require("hidden_act", "relu2", None)
    text.require("tie_word_embeddings", False, None)
    width, heads = text.whole("hidden_size", *WIDTH), text.whole("num_attention_heads", *HEADS)
    if width % heads:
        raise ModelError(f"This Fuyu's {width} numbers (hidden_size) cannot be split among {heads} heads")
    rope = _rope(text)
    turned = int(width // heads * rope.number("partial_rotary_factor", 0.0, 1.0))
    if turned < 2 or turned % 2:
        raise rope.wrong("partial_rotary_factor", "a share of a head's numbers that is even, and not none")
    return DecoderConfig(
        vocabulary=text.whole("vocab_size", *ROWS),
        width=width,
        depth=text.whole("num_hidden_layers", *DEPTH),
        mlp_width=text.whole("intermediate_size", *INNER),
        heads=heads,
        turned=turned,
        rope_base=rope.positive("rope_theta"),
        norm_epsilon=text.number("layer_norm_eps", *EPSILON),
        head_norms=text.flag("qk_layernorm"),
    )


def _rope(text: Fields) -> Fields:
    """How positions are encoded: rope_parameters, or in older files fields of the decoder's own."""
    otherwise = {"rope_theta": text.get("rope_theta"), "partial_rotary_factor": text.get("partial_rotary_factor")}
    rope = text.part("rope_parameters" if text.get("rope_parameters") else "rope_scaling", otherwise)
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind != "default":
        raise ModelError(f"This text model stretches its positions ({shown(kind)} rope); only the plain kind is known")
    return rope
