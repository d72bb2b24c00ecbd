"""The Fuyu family."""

from mmcli.models.family import Family
from mmcli.models.fuyu.capabilities import capabilities
from mmcli.models.fuyu.config import FuyuConfig
from mmcli.models.fuyu.finding import find
from mmcli.models.fuyu.model import Fuyu
from mmcli.models.fuyu.processor import FuyuProcessor
from mmcli.models.fuyu.stages import stages
from mmcli.models.fuyu.weights import rules

FAMILY = Family(
    name="Fuyu",
    read_config=FuyuConfig.from_hf,
    build=Fuyu,
    rules=rules,
    processor=FuyuProcessor.open,
    stages=stages,
    capabilities=capabilities,
    find=find,
)

__all__ = ["FAMILY", "Fuyu", "FuyuConfig", "FuyuProcessor"]
