"""What PaliGemma can do."""

from mmcli.models.family import Capabilities
from mmcli.models.paligemma.config import PaliGemmaConfig


def capabilities(config: PaliGemmaConfig) -> Capabilities:
    """What the published models were trained for; a prompt may stand alone or be about several images."""
    return Capabilities(images=True, objects=True, masks=True, reads_text=True)
