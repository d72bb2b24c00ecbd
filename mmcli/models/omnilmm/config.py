"""OmniLMM's configuration, read from a checkpoint's config.json.

It is that of a Mistral with a few fields of its own (OpenBMB/MiniCPM-V `omnilmm/model/omnilmm.py`), and its
`model_type` is omnilmm: transformers without that class stops at it, as the 70th report at OpenBMB/MiniCPM-V quotes.
The tower is always the same one, so no field tells its sizes; `vision_config` may, for smaller ones.
"""

from dataclasses import dataclass
from math import isqrt
from typing import Any

from mmcli.errors import ModelError
from mmcli.hub.fields import DEPTH, HEADS, ID, INNER, SIDE, SOFT_TOKENS, WIDTH, Fields
from mmcli.layers.decoder import LlamaConfig
from mmcli.layers.resampler import ResamplerConfig
from mmcli.models.llama import MISTRAL, read_decoder
from mmcli.models.omnilmm.eva import EvaConfig

# eva02_enormous_patch14_clip_224.laion2b_plus, by the names of its arguments in timm's `models/eva.py`.
EVA_02_E = {
    "img_size": 224, "patch_size": 14, "embed_dim": 1792, "depth": 64, "num_heads": 16, "mlp_hidden_dim": 15360,
}  # fmt: skip
HEAD_WIDTH = 128  # of the resampler, whatever the decoder's
OTHERWISE = MISTRAL | {"bos_token_id": 1, "eos_token_id": 2}


@dataclass(frozen=True)
class OmniLMMConfig:
    """Everything about an OmniLMM checkpoint that its config.json says."""

    vision: EvaConfig
    resampler: ResamplerConfig
    decoder: LlamaConfig
    bos: int
    stop_ids: frozenset[int]

    @classmethod
    def from_hf(cls, raw: dict[str, Any]) -> "OmniLMMConfig":
        """Read config.json. Raises ModelError for wrong values, and for those that mmcli does not support."""
        whole = Fields(raw, "This OmniLMM's config.json", OTHERWISE)
        whole.text("mm_vision_tower")  # by this field the reference knows that a checkpoint has a tower
        whole.require("mm_use_im_start_end", True)
        decoder = read_decoder(whole)
        vision = _read_vision(whole)
        return cls(
            vision=vision,
            resampler=_read_resampler(whole, decoder.width, vision.width),
            decoder=decoder,
            bos=whole.whole("bos_token_id", *ID),
            stop_ids=whole.ids("eos_token_id"),
        )


def _read_vision(whole: Fields) -> EvaConfig:
    raw = whole.part("vision_config")
    raw.otherwise = EVA_02_E
    config = EvaConfig(
        width=raw.whole("embed_dim", *WIDTH),
        depth=raw.whole("depth", 2, DEPTH[1]) - 1,  # the resampler reads what the last but one gives
        mlp_width=raw.whole("mlp_hidden_dim", *INNER),
        heads=raw.whole("num_heads", *HEADS),
        patch_size=raw.whole("patch_size", *SIDE),
        image_size=whole.whole("image_size", *SIDE),
        trained_size=raw.whole("img_size", *SIDE),
    )
    if config.width % config.heads:
        raise ModelError(f"The image tower's {config.width} numbers cannot be split among {config.heads} heads")
    for size in (config.image_size, config.trained_size):
        if size % config.patch_size:
            raise ModelError(f"Images of {size} pixels cannot be cut into patches of {config.patch_size}")
    if config.grid**2 > SOFT_TOKENS[1]:
        raise whole.wrong("image_size", f"one that makes at most {SOFT_TOKENS[1]} patches of an image")
    return config


def _read_resampler(whole: Fields, width: int, input_width: int) -> ResamplerConfig:
    queries = whole.whole("num_query", *SOFT_TOKENS)
    side = isqrt(queries)
    if side * side != queries:
        raise whole.wrong("num_query", "a square number: the queries lie on a grid")
    if width % HEAD_WIDTH:
        raise whole.wrong("hidden_size", f"a multiple of {HEAD_WIDTH}, the width of the resampler's heads")
    return ResamplerConfig(queries, width, width // HEAD_WIDTH, input_width, query_grid=(side, side), stretched=True)
