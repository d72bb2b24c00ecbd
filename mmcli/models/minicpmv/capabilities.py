"""What MiniCPM-V can do."""

from mmcli.models.family import Capabilities
from mmcli.models.minicpmv.config import MiniCPMVConfig


def capabilities(config: MiniCPMVConfig) -> Capabilities:
    """Only 2.6 was trained on several images. They are decoded whole: their size decides how they are cut."""
    return Capabilities(images=True, max_images=None if config.version == "2.6" else 1, reads_text=True, turns=True)
