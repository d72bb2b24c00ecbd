"""Checkpoints of SigLIP towers, as families share them: what their config.json says, and their tensors' names."""

from typing import Any

from mmcli.errors import ModelError
from mmcli.hub.fields import DEPTH, EPSILON, HEADS, INNER, SIDE, SOFT_TOKENS, WIDTH, Fields
from mmcli.hub.weights import Rule
from mmcli.layers.siglip import SiglipConfig

# What a configuration leaves out has the value that transformers gives it (`models/siglip/configuration_siglip.py`).
SIGLIP: dict[str, Any] = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "image_size": 224, "patch_size": 16, "layer_norm_eps": 1e-6,
}  # fmt: skip

TENSORS: dict[str, str | None] = {
    "embeddings.patch_embedding.{}": "patch.{}",
    "embeddings.position_embedding.weight": "position",
    "encoder.layers.{}.layer_norm1.{}": "layers.{}.norm_attention.{}",
    "encoder.layers.{}.layer_norm2.{}": "layers.{}.norm_mlp.{}",
    "encoder.layers.{}.self_attn.q_proj.{}": "layers.{}.attention.q.{}",
    "encoder.layers.{}.self_attn.k_proj.{}": "layers.{}.attention.k.{}",
    "encoder.layers.{}.self_attn.v_proj.{}": "layers.{}.attention.v.{}",
    "encoder.layers.{}.self_attn.out_proj.{}": "layers.{}.attention.out.{}",
    "encoder.layers.{}.mlp.fc1.{}": "layers.{}.mlp.up.{}",
    "encoder.layers.{}.mlp.fc2.{}": "layers.{}.mlp.down.{}",
    "post_layernorm.{}": "norm.{}",
    # Not used by models that read the patches before any pooling; some conversions keep them.
    "embeddings.position_ids": None,
    "head.probe": None,
    "head.attention.in_proj_weight": None,
    "head.attention.in_proj_bias": None,
    "head.attention.out_proj.{}": None,
    "head.layernorm.{}": None,
    "head.mlp.{}.{}": None,
}


def tower_rules(prefix: str, ours: str = "vision.") -> list[Rule]:
    """The table of a tower: `prefix` stands before the checkpoint's names, `ours` before ours."""
    return [Rule(prefix + name, None if own is None else ours + own) for name, own in TENSORS.items()]


def read_tower(raw: Fields, *kinds: str) -> SiglipConfig:
    """The tower that a vision_config describes, whose model_type, if any, is one of `kinds`. Raises ModelError.

    `raw.otherwise` holds what may be left out, such as `SIGLIP`.
    """
    raw.require("model_type", *kinds, None)
    raw.require("hidden_act", "gelu_pytorch_tanh", None)
    raw.require("num_channels", 3, None)
    config = SiglipConfig(
        width=raw.whole("hidden_size", *WIDTH),
        depth=raw.whole("num_hidden_layers", *DEPTH),
        mlp_width=raw.whole("intermediate_size", *INNER),
        heads=raw.whole("num_attention_heads", *HEADS),
        image_size=raw.square("image_size", *SIDE),
        patch_size=raw.square("patch_size", *SIDE),
        norm_epsilon=raw.number("layer_norm_eps", *EPSILON),
    )
    if config.patches < 1:
        raise ModelError(f"Patches of {config.patch_size} pixels do not fit into images of {config.image_size}")
    if config.patches > SOFT_TOKENS[1]:
        raise raw.wrong("patch_size", f"one that makes at most {SOFT_TOKENS[1]} patches of an image")
    if config.width % config.heads:
        raise ModelError(f"The vision tower's {config.width} numbers cannot be split among {config.heads} heads")
    return config
