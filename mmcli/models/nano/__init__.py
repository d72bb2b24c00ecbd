"""The bundled family: small enough to ship, PaliGemma's language, trained by this project."""

from mmcli.models.family import Family
from mmcli.models.nano.capabilities import capabilities
from mmcli.models.nano.config import NanoConfig
from mmcli.models.nano.finding import find, outline
from mmcli.models.nano.model import Nano
from mmcli.models.nano.processor import NanoProcessor
from mmcli.models.nano.stages import stages
from mmcli.models.nano.teaching import NanoTeaching
from mmcli.models.nano.vocabulary import closed_vocabulary
from mmcli.models.nano.weights import rules

FAMILY = Family(
    name="nano",
    read_config=NanoConfig.from_json,
    build=Nano,
    processor=NanoProcessor.open,
    stages=stages,
    capabilities=capabilities,
    rules=rules,
    closed_vocabulary=closed_vocabulary,
    find=find,
    outline=outline,
    teaching=NanoTeaching(),
)

__all__ = ["FAMILY", "Nano", "NanoConfig", "NanoProcessor"]
