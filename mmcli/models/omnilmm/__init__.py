"""The OmniLMM family: a model that went before MiniCPM-V."""

from mmcli.models.family import Family
from mmcli.models.omnilmm.capabilities import capabilities
from mmcli.models.omnilmm.config import OmniLMMConfig
from mmcli.models.omnilmm.model import OmniLMM
from mmcli.models.omnilmm.processor import OmniLMMProcessor
from mmcli.models.omnilmm.stages import stages
from mmcli.models.omnilmm.weights import rules

FAMILY = Family(
    name="OmniLMM",
    read_config=OmniLMMConfig.from_hf,
    build=OmniLMM,
    rules=rules,
    processor=OmniLMMProcessor.open,
    stages=stages,
    capabilities=capabilities,
)

__all__ = ["FAMILY", "OmniLMM", "OmniLMMConfig", "OmniLMMProcessor"]
