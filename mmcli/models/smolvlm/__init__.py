"""The SmolVLM family."""

from mmcli.models.family import Family
from mmcli.models.smolvlm.capabilities import capabilities
from mmcli.models.smolvlm.config import SmolVLMConfig
from mmcli.models.smolvlm.model import SmolVLM
from mmcli.models.smolvlm.processor import SmolVLMProcessor
from mmcli.models.smolvlm.stages import stages
from mmcli.models.smolvlm.teaching import SmolVLMTeaching
from mmcli.models.smolvlm.weights import rules

FAMILY = Family(
    name="SmolVLM",
    read_config=SmolVLMConfig.from_hf,
    build=SmolVLM,
    rules=rules,
    processor=SmolVLMProcessor.open,
    stages=stages,
    capabilities=capabilities,
    teaching=SmolVLMTeaching(),
)

__all__ = ["FAMILY", "SmolVLM", "SmolVLMConfig", "SmolVLMProcessor"]
