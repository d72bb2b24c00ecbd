"""What the tests of batches share."""

import pytest
from loudness import LoudnessDetector

from mmcli.speech import silero_vad


@pytest.fixture
def loudness_is_speech(monkeypatch):
    """What is loud is taken for speech."""
    monkeypatch.setattr(silero_vad, "load_silero_vad", LoudnessDetector)
