"""What PaliGemma can do."""

from mmcli.models.family import Capabilities
from mmcli.models.paligemma.config import PaliGemmaConfig

DETAILS = ("low", "high")


def capabilities(config: PaliGemmaConfig) -> Capabilities:
    """What the published models were trained for; a prompt may stand alone or be about several images."""
    return Capabilities(
        images=True,
        objects=True,
        masks=True,
        outlines_boxes=True,
        reads_text=True,
        details=DETAILS,
    )
