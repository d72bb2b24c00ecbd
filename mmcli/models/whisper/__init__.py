"""The Whisper family: speech to text."""

from mmcli.models.family import Family
from mmcli.models.whisper.capabilities import capabilities
from mmcli.models.whisper.config import WhisperConfig
from mmcli.models.whisper.model import Whisper
from mmcli.models.whisper.processor import WhisperProcessor
from mmcli.models.whisper.stages import stages
from mmcli.models.whisper.teaching import WhisperTeaching
from mmcli.models.whisper.transcribe import transcribe_windows, transcript_inputs
from mmcli.models.whisper.weights import rules

FAMILY = Family(
    name="Whisper",
    read_config=WhisperConfig.from_hf,
    build=Whisper,
    rules=rules,
    processor=WhisperProcessor.open,
    stages=stages,
    capabilities=capabilities,
    transcript_inputs=transcript_inputs,
    transcribe=transcribe_windows,
    teaching=WhisperTeaching(),
)

__all__ = ["FAMILY", "Whisper", "WhisperConfig", "WhisperProcessor"]
