"""What Fuyu can do."""

from mmcli.models.family import Capabilities
from mmcli.models.fuyu.config import FuyuConfig


def capabilities(config: FuyuConfig) -> Capabilities:
    """What the published model was trained for, with one image in a prompt.

    Images are decoded whole: which patches there are follows from their size in pixels.
    """
    return Capabilities(images=True, max_images=1, objects=True, reads_text=True)
