"""What Whisper can do."""

from mmcli.models.family import Capabilities
from mmcli.models.whisper.config import WhisperConfig
from mmcli.models.whisper.features import HOP, RATE
from mmcli.models.whisper.vocabulary import MULTILINGUAL_ROWS


def capabilities(config: WhisperConfig) -> Capabilities:
    """Which languages a checkpoint knows, its tokenizer tells."""
    return Capabilities(
        answers=False,
        max_audio_seconds=config.frames * HOP / RATE,
        timestamps="word",
        translates=config.vocabulary >= MULTILINGUAL_ROWS,
    )
