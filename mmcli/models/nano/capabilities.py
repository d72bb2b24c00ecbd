"""What nano can do."""

from mmcli.models.family import Capabilities
from mmcli.models.nano.config import NanoConfig

BEAMS = 4
READ_SIDE = 896  # pixels: well above what the model resizes to; so its published figures were measured


def capabilities(config: NanoConfig) -> Capabilities:
    """Every prompt is about one image: nano was trained so."""
    return Capabilities(
        images=True,
        images_needed=1,
        max_images=1,
        min_read_side=READ_SIDE,
        caption_beams=BEAMS,
        details=("low", "medium"),
        objects=True,
        masks=True,
        outlines_boxes=True,
        probabilities=True,
    )
