"""Names of SmolVLM's tensors: checkpoint → ours."""

from mmcli.hub.weights import Rule
from mmcli.models.llama import decoder_rules
from mmcli.models.siglip import tower_rules
from mmcli.models.smolvlm.config import SmolVLMConfig


def rules(config: SmolVLMConfig) -> list[Rule]:
    """The table for one configuration."""
    return [
        *tower_rules("model.vision_model."),
        Rule("model.connector.modality_projection.proj.weight", "connector.projection.weight"),
        *decoder_rules(config.decoder, "model.text_model."),
    ]
