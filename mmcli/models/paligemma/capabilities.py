"""What PaliGemma can do."""

from mmcli.models.family import Capabilities
from mmcli.models.paligemma.config import PaliGemmaConfig

LARGEST = 896  # pixels: the side of the largest published checkpoints; smaller ones see as much of a large image

DETAILS = ("low", "high")


def capabilities(config: PaliGemmaConfig) -> Capabilities:
    """What the published models were trained for; a prompt may stand alone or be about several images."""
    side = max(config.vision.image_size, LARGEST)
    return Capabilities(
        images=True,
        min_read_side=side,
        objects=True,
        masks=True,
        outlines_boxes=True,
        reads_text=True,
        details=DETAILS,
    )
