"""The MiniCPM-V family: 1.0, 2.0, 2.5 and 2.6."""

from mmcli.models.family import Family
from mmcli.models.minicpmv.capabilities import capabilities
from mmcli.models.minicpmv.config import MiniCPMVConfig
from mmcli.models.minicpmv.model import MiniCPMV
from mmcli.models.minicpmv.processor import MiniCPMVProcessor
from mmcli.models.minicpmv.stages import stages
from mmcli.models.minicpmv.weights import rules

FAMILY = Family(
    name="MiniCPM-V",
    read_config=MiniCPMVConfig.from_hf,
    build=MiniCPMV,
    rules=rules,
    processor=MiniCPMVProcessor.open,
    stages=stages,
    capabilities=capabilities,
)

__all__ = ["FAMILY", "MiniCPMV", "MiniCPMVConfig", "MiniCPMVProcessor"]
