"""What Gemma 3n can do: all of it where the checkpoint has its encoders, else talk."""

from mmcli.models.family import Capabilities
from mmcli.models.gemma3n.config import Gemma3nConfig
from mmcli.models.gemma3n.features import LONGEST, RATE


def capabilities(config: Gemma3nConfig) -> Capabilities:
    """Of its languages no list was published."""
    return Capabilities(
        images=config.vision is not None,
        details=("low", "medium", "high") if config.vision is not None else (),
        reads_text=config.vision is not None,
        audio=config.audio is not None,
        max_audio_seconds=LONGEST / RATE if config.audio else None,
        turns=True,
        timestamps="window" if config.audio else None,
        translates=config.audio is not None,
    )
