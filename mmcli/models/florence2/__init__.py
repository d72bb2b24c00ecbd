"""Florence-2: captions, boxes, outlines and text of images, by fixed prompts."""

from mmcli.models.family import Family
from mmcli.models.florence2.capabilities import capabilities
from mmcli.models.florence2.config import Florence2Config
from mmcli.models.florence2.finding import find
from mmcli.models.florence2.model import Florence2
from mmcli.models.florence2.processor import Florence2Processor
from mmcli.models.florence2.stages import stages
from mmcli.models.florence2.weights import rules

FAMILY = Family(
    name="Florence-2",
    read_config=Florence2Config.from_hf,
    build=Florence2,
    rules=rules,
    processor=Florence2Processor.open,
    stages=stages,
    capabilities=capabilities,
    find=find,
)

__all__ = ["FAMILY", "Florence2", "Florence2Config", "Florence2Processor"]
