"""SmolVLM's configuration, read from a checkpoint's config.json.

What a checkpoint leaves out has the value that transformers gives it (`models/{idefics3,smolvlm}/configuration_*.py`).
"""

from dataclasses import dataclass
from typing import Any

from mmcli.errors import ModelError
from mmcli.hub.fields import ID, SOFT_TOKENS, Fields, shown
from mmcli.layers.decoder import LlamaConfig
from mmcli.layers.siglip import SiglipConfig
from mmcli.models.llama import LLAMA, read_decoder
from mmcli.models.siglip import read_tower

WHOLE = {"image_token_id": 128257, "scale_factor": 2, "tie_word_embeddings": False}
VISION = {
    "hidden_size": 1152, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 16,
    "image_size": 224, "patch_size": 32, "layer_norm_eps": 1e-6,
}  # fmt: skip
ABSENT_TEXT = {"rms_norm_eps": 1e-5}  # of a checkpoint that says nothing about its decoder at all
TOWERS = ("smolvlm_vision", "idefics3_vision", "idefics3", "siglip_vision_model")
MOST_SHUFFLED = 64  # patches a side that one soft token is made of


@dataclass(frozen=True)
class SmolVLMConfig:
    """Everything about a SmolVLM checkpoint that its config.json says."""

    vision: SiglipConfig
    decoder: LlamaConfig
    scale: int  # patches a side that one soft token is made of
    image_token: int
    stop_ids: frozenset[int]

    @classmethod
    def from_hf(cls, raw: dict[str, Any]) -> "SmolVLMConfig":
        """Read config.json. Raises ModelError for wrong values, and for those that mmcli does not support."""
        whole = Fields(raw, "This SmolVLM's config.json", WHOLE)
        text = whole.part("text_config", ABSENT_TEXT if "text_config" not in whole else {})
        kind = text.get("model_type") or "llama"
        if kind != "llama":
            raise ModelError(f"This SmolVLM has a text model of the type {shown(kind)}; supported is llama")
        text.require("qk_layer_norms", False, None)
        whole.require("use_resampler", False, None)
        text.require("use_resampler", False, None)
        text.otherwise = {**LLAMA, **text.otherwise}
        decoder = read_decoder(text, tied=whole.flag("tie_word_embeddings"))
        vision = whole.part("vision_config", VISION)
        config = cls(
            vision=read_tower(vision, *TOWERS),
            decoder=decoder,
            scale=whole.whole("scale_factor", 1, MOST_SHUFFLED),
            image_token=whole.whole("image_token_id", *ID),
            stop_ids=whole.ids("eos_token_id") or text.ids("eos_token_id"),
        )
        config.soft_tokens_of(config.vision.image_size)
        return config

    def soft_tokens_of(self, side: int) -> int:
        """How many a tile of `side` pixels becomes. Raises ModelError where its patches cannot be put together."""
        rows = side // self.vision.patch_size
        if rows**2 > SOFT_TOKENS[1]:
            most = SOFT_TOKENS[1]
            raise ModelError(f"This SmolVLM's tiles of {side} pixels have {rows**2} patches, more than {most}")
        if rows < 1 or rows % self.scale:
            raise ModelError(
                f"This SmolVLM's tiles of {side} pixels have {rows} rows of patches, "
                f"of which {self.scale} cannot be put together (scale_factor)"
            )
        return (rows // self.scale) ** 2
