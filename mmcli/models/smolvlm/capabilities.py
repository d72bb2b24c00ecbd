"""What SmolVLM can do."""

from mmcli.models.family import Capabilities
from mmcli.models.smolvlm.config import SmolVLMConfig


def capabilities(config: SmolVLMConfig) -> Capabilities:
    """It answers questions about any number of images, or none, and remembers the turns before."""
    return Capabilities(images=True, reads_text=True, turns=True)
