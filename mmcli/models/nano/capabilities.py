"""What nano can do."""

from mmcli.models.family import Capabilities
from mmcli.models.nano.config import NanoConfig


def capabilities(config: NanoConfig) -> Capabilities:
    """Every prompt is about one image: nano was trained so."""
    return Capabilities(images=True, images_needed=1, max_images=1, objects=True, masks=True, probabilities=True)
