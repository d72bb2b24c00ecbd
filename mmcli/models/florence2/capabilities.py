"""What Florence-2 can do."""

from mmcli.models.family import Capabilities
from mmcli.models.florence2.config import Florence2Config

BEAMS = 3  # as published; a checkpoint's own settings may say otherwise


def capabilities(config: Florence2Config) -> Capabilities:
    """What the published models were trained for: fixed prompts about one image."""
    return Capabilities(
        images=True,
        images_needed=1,
        max_images=1,
        beams=BEAMS,
        details=("low", "medium", "high"),
        questions=False,
        reads_text=True,
        reads_regions=True,
        objects=True,
        finds_all=True,
        masks=True,
    )
