"""What OmniLMM can do."""

from mmcli.models.family import Capabilities
from mmcli.models.omnilmm.config import OmniLMMConfig


def capabilities(config: OmniLMMConfig) -> Capabilities:
    """It was trained on conversations about one image, and to read what is written in it (docs/omnilmm_en.md there)."""
    return Capabilities(images=True, max_images=1, reads_text=True, turns=True)
