"""What SmolVLM can do."""

from mmcli.models.family import Capabilities
from mmcli.models.smolvlm.config import SmolVLMConfig

TILES = 4  # a side, of the published checkpoints' images; the checkpoint's own settings say how many


def capabilities(config: SmolVLMConfig) -> Capabilities:
    """It answers questions about any number of images, or none, and remembers the turns before."""
    return Capabilities(images=True, min_read_side=TILES * config.vision.image_size, reads_text=True, turns=True)
