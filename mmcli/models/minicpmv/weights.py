"""Names of MiniCPM-V's tensors: checkpoint → ours."""

from mmcli.hub.weights import Rule
from mmcli.layers.resampler import RESAMPLER_TENSORS
from mmcli.models.llama import decoder_rules
from mmcli.models.minicpmv.config import MiniCPMVConfig
from mmcli.models.siglip import tower_rules

TOWER = "vision.tower."

# As timm names them (1.0 and 2.0).
TIMM_TENSORS: dict[str, str | None] = {
    "pos_embed": "position",
    "patch_embed.proj.{}": "patch.{}",
    "blocks.{}.norm1.{}": "layers.{}.norm_attention.{}",
    "blocks.{}.norm2.{}": "layers.{}.norm_mlp.{}",
    "blocks.{}.attn.qkv.{}": "layers.{}.attention.qkv.{}",
    "blocks.{}.attn.proj.{}": "layers.{}.attention.out.{}",
    "blocks.{}.mlp.fc1.{}": "layers.{}.mlp.up.{}",
    "blocks.{}.mlp.fc2.{}": "layers.{}.mlp.down.{}",
    "norm.{}": "norm.{}",
}


def rules(config: MiniCPMVConfig) -> list[Rule]:
    """The table for one configuration."""
    if config.places == "stretched":
        tower = [Rule(f"vpm.{name}", f"{TOWER}{own}") for name, own in TIMM_TENSORS.items()]
    else:
        tower = tower_rules("vpm.", TOWER)
    resampler = [Rule(f"resampler.{name}", f"vision.resampler.{own}") for name, own in RESAMPLER_TENSORS.items()]
    return [*tower, *resampler, *decoder_rules(config.decoder, model="llm.model.", head="llm.")]
