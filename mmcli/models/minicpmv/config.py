"""MiniCPM-V's configuration, read from a checkpoint's config.json.

What a checkpoint leaves out has the value of the published code (`configuration_minicpm.py` of each version).
"""

from dataclasses import dataclass, replace
from math import isqrt, sqrt
from typing import Any

from mmcli.errors import ModelError
from mmcli.hub.fields import ID, SIDE, SOFT_TOKENS, Fields, shown
from mmcli.layers.decoder import LlamaConfig
from mmcli.layers.resampler import ResamplerConfig
from mmcli.layers.siglip import SiglipConfig
from mmcli.models.llama import LLAMA, QWEN2, read_decoder
from mmcli.models.minicpmv.vision import Places
from mmcli.models.siglip import read_tower
from mmcli.models.slices import Slicing

READ = ("1.0", "2.0", "2.5", "2.6")
FIRST = READ[:2]  # a tower of timm's, MiniCPM's decoder, no chat template
MOST_SLICES = 64
RESAMPLER_HEAD = 128  # numbers: each head of the resampler has as many

WHOLE: dict[str, Any] = {"query_num": 64, "patch_size": 14, "pad_token_id": 0, "image_size": 448}
SLICES: dict[str, Any] = {"max_slice_nums": 9, "scale_resolution": 448, "patch_size": 14}
TOWER: dict[str, Any] = {
    "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16,
    "image_size": 980, "patch_size": 14, "layer_norm_eps": 1e-6,
}  # fmt: skip
MINICPM: dict[str, Any] = LLAMA | {"rms_norm_eps": 1e-5, "scale_emb": 1.0, "scale_depth": 1.0, "dim_model_base": 1}

# timm's towers by the names that the first versions give them; the second part names weights, not sizes.
TIMM_TOWERS = {f"vit_so400m_patch14_siglip_384{weights}": TOWER | {"image_size": 384} for weights in (".webli", "")}


@dataclass(frozen=True)
class MiniCPMVConfig:
    """Everything about a MiniCPM-V checkpoint that its config.json says."""

    version: str  # one of `READ`
    vision: SiglipConfig
    places: Places
    resampler: ResamplerConfig
    decoder: LlamaConfig
    slicing: Slicing | None
    square: int | None  # pixels: the side that images are squeezed to where they are not cut (1.0)
    pad: int
    bos: int
    stop_ids: frozenset[int]

    @property
    def own_slice_marks(self) -> bool:
        """Whether slices have marks of their own and images a number (2.6); else slices are marked like images."""
        return self.version == "2.6"

    @classmethod
    def from_hf(cls, raw: dict[str, Any]) -> "MiniCPMVConfig":
        """Read config.json. Raises ModelError for wrong values, and for those that mmcli does not support."""
        whole = Fields(raw, "This MiniCPM-V's config.json", WHOLE)
        version = _version(whole)
        whole.require("slice_mode", True, None)
        decoder = _decoder(whole, version)
        vision = _timm_tower(whole) if version in FIRST else read_tower(_part(whole, TOWER), "siglip", "idefics2")
        if whole.get("drop_vision_last_layer") is True:
            vision = replace(vision, depth=vision.depth - 1)
        places: dict[str, Places] = {"2.5": "in a row", "2.6": "sampled"}
        return cls(
            version=version,
            vision=vision,
            places=places.get(version, "stretched"),
            resampler=_resampler(whole, version, decoder.width, vision.width),
            decoder=decoder,
            slicing=None if version == "1.0" else _slicing(whole, version, vision.patch_size),
            square=_square(whole, vision.patch_size) if version == "1.0" else None,
            pad=whole.whole("pad_token_id", *ID),
            bos=whole.whole("bos_token_id", *ID),
            stop_ids=whole.ids("eos_token_id"),
        )


def _slicing(whole: Fields, version: str, patch: int) -> Slicing:
    slices = whole if version == "2.0" else whole.part("slice_config")
    slices.otherwise = {**SLICES, **slices.otherwise}
    return Slicing(
        slices.whole("scale_resolution", *SIDE),
        slices.whole("max_slice_nums", 1, MOST_SLICES),
        slices.whole("patch_size", patch, patch),
    )


def _square(whole: Fields, patch: int) -> int:
    side = whole.whole("image_size", *SIDE)
    if side % patch:
        raise whole.wrong("image_size", f"a multiple of {patch}, the side of a patch")
    if (side // patch) ** 2 > SOFT_TOKENS[1]:
        raise whole.wrong("image_size", f"one that makes at most {SOFT_TOKENS[1]} patches of an image")
    return side


def _version(whole: Fields) -> str:
    """Which MiniCPM-V this is: the first two do not say, nor do early copies of 2.5, but only the first has no slices.

    Raises ModelError for one that is not read.
    """
    version = str(whole.get("version") or "")
    if not version:
        timm = "vision_encoder" in whole
        version = "2.5" if not timm else "2.0" if whole.get("slice_mode") else "1.0"
    if version not in READ:
        raise ModelError(
            f"This is version {shown(version)} of MiniCPM-V; mmcli reads {', '.join(READ[:-1])} and {READ[-1]}"
        )
    return version


def _decoder(whole: Fields, version: str) -> LlamaConfig:
    """MiniCPM's in 1.0 and 2.0, Llama 3's in 2.5, Qwen2's in 2.6: their settings stand in the whole file."""
    absent = {"2.5": LLAMA, "2.6": QWEN2}.get(version, MINICPM)
    text = Fields(whole.raw, whole.where, absent)
    if version not in FIRST:
        return read_decoder(text, **({"qkv_bias": True} if version == "2.6" else {}))
    plain = read_decoder(text)
    return replace(
        plain,
        embedding_scale=text.positive("scale_emb", 1e6),
        residual_scale=text.positive("scale_depth", 1e6) / sqrt(plain.depth),
        logit_scale=text.positive("dim_model_base", 1e6) / plain.width,
    )


def _part(whole: Fields, otherwise: dict[str, Any]) -> Fields:
    return whole.part("vision_config", otherwise)


def _timm_tower(whole: Fields) -> SiglipConfig:
    """A tower that is named as timm names it, and sized by that, unless a vision_config sizes it."""
    name = whole.text("vision_encoder")
    if name not in TIMM_TOWERS:
        raise whole.wrong("vision_encoder", " or ".join(TIMM_TOWERS))
    return replace(read_tower(_part(whole, TIMM_TOWERS[name])), exact_gelu=True, fused_qkv=True)


def _resampler(whole: Fields, version: str, width: int, input_width: int) -> ResamplerConfig:
    """A query for each soft token, in 1.0 and 2.0 on a square grid."""
    queries = whole.whole("query_num", *SOFT_TOKENS)
    side = isqrt(queries)
    if version in FIRST and side * side != queries:
        raise whole.wrong("query_num", "a square number")
    if width % RESAMPLER_HEAD:
        raise ModelError(
            f"{whole.where} sets hidden_size to {width}; the resampler needs a multiple of {RESAMPLER_HEAD}"
        )
    return ResamplerConfig(
        queries=queries,
        width=width,
        heads=width // RESAMPLER_HEAD,
        input_width=input_width,
        query_grid=(side, side) if version in FIRST else None,
        stretched=version == "1.0",
    )
