"""What Fuyu can do."""

from mmcli.models.family import Capabilities
from mmcli.models.fuyu.config import FuyuConfig


def capabilities(config: FuyuConfig) -> Capabilities:
    """What the published model was trained for, with one image in a prompt.

    Images are decoded whole: which patches there are follows from their size in pixels. It reads the text in a box that
    a prompt names; nothing is published by which it would read a whole image.
    """
    return Capabilities(images=True, max_images=1, objects=True)
