"""Names of OmniLMM's tensors: checkpoint → ours.

They follow from the modules of OpenBMB/MiniCPM-V `omnilmm/model/omnilmm.py`, which keeps tower and resampler beside
the decoder's layers, and from timm's `models/eva.py`.
"""

from mmcli.hub.weights import Rule
from mmcli.layers.resampler import RESAMPLER_TENSORS
from mmcli.models.llama import decoder_rules
from mmcli.models.omnilmm.config import OmniLMMConfig

VISION_TENSORS = {
    "patch_embed.proj.{}": "patch.{}",
    "cls_token": "class_token",
    "pos_embed": "position",
    "blocks.{}.attn.qkv.weight": "blocks.{}.attention.qkv.weight",
    "blocks.{}.attn.q_bias": "blocks.{}.attention.q_bias",
    "blocks.{}.attn.v_bias": "blocks.{}.attention.v_bias",
    "blocks.{}.attn.proj.{}": "blocks.{}.attention.out.{}",
    "blocks.{}.norm1.{}": "blocks.{}.norm_attention.{}",
    "blocks.{}.norm2.{}": "blocks.{}.norm_mlp.{}",
    "blocks.{}.mlp.fc1.{}": "blocks.{}.up.{}",
    "blocks.{}.mlp.fc2.{}": "blocks.{}.down.{}",
    "norm.{}": "norm.{}",
}
BLOCK_TENSORS = tuple(name.removeprefix("blocks.{}.") for name in VISION_TENSORS if name.startswith("blocks."))


def rules(config: OmniLMMConfig) -> list[Rule]:
    """The table of one configuration. The tower's last block, where a file still has it, is not computed: dropped."""
    last = f"model.vision_tower.blocks.{config.vision.depth}."
    table = [Rule(last + name, None) for name in BLOCK_TENSORS]
    # The classifier of the tower alone.
    table += [Rule("model.vision_tower.head.{}", None)]
    table += [Rule(f"model.vision_tower.{theirs}", f"vision.{ours}") for theirs, ours in VISION_TENSORS.items()]
    table += [Rule(f"model.resampler.{theirs}", f"resampler.{ours}") for theirs, ours in RESAMPLER_TENSORS.items()]
    return table + decoder_rules(config.decoder)
