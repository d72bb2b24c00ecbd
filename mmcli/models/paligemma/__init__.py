"""The PaliGemma family."""

from mmcli.models.family import Family
from mmcli.models.outlining import outline
from mmcli.models.paligemma.capabilities import capabilities
from mmcli.models.paligemma.config import PaliGemmaConfig
from mmcli.models.paligemma.model import PaliGemma
from mmcli.models.paligemma.processor import PaliGemmaProcessor
from mmcli.models.paligemma.stages import stages
from mmcli.models.paligemma.teaching import PaliGemmaTeaching
from mmcli.models.paligemma.weights import rules

FAMILY = Family(
    name="PaliGemma",
    read_config=PaliGemmaConfig.from_hf,
    build=PaliGemma,
    rules=rules,
    processor=PaliGemmaProcessor.open,
    stages=stages,
    capabilities=capabilities,
    outline=outline,
    teaching=PaliGemmaTeaching(),
)

__all__ = ["FAMILY", "PaliGemma", "PaliGemmaConfig", "PaliGemmaProcessor"]
