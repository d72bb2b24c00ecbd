"""A model and a detector of speech that go by loudness: their answers are made up, all else of a run is real."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
from audio_files import wav_bytes
from file_sources import in_memory

from mmcli.batch.outcome import Outcome
from mmcli.batch.transcribe import transcribe
from mmcli.media.sources import Source
from mmcli.models.family import Capabilities
from mmcli.output.record import to_dict
from mmcli.speech.windows import RATE
from mmcli.tasks.transcribe import TranscribeRequest
from mmcli.types import Segment


@dataclass
class Text:
    """What a family says of one window."""

    text: str
    seconds: float
    token_ids: tuple = (1, 2, 3)
    transcribed_until: float | None = None
    compression_ratio: float = 1.0
    logprob: float = -0.3
    language: str = "en"
    truncated: bool = False
    segments: tuple = field(init=False)

    def __post_init__(self):
        end = self.seconds if self.transcribed_until is None else self.transcribed_until
        self.transcribed_until = end
        self.segments = (Segment(0.0, end, " " + self.text),) if self.text else ()


class LoudnessModel:
    """It names the loudness of its audio, so that the texts of windows tell them apart; `say` makes others."""

    def __init__(self, say=None):
        self.batches: list[int] = []  # windows in each
        self.say = say or (lambda audio: Text(f"{np.abs(audio).max():.2f}", len(audio) / RATE))
        self.family = SimpleNamespace(transcribe=self.transcribe)
        able = Capabilities(max_audio_seconds=30.0, timestamps="segment")
        self.processor = SimpleNamespace(is_text=lambda id: id < 100, capabilities=able)
        self.checkpoint = SimpleNamespace(name="loudness", revision="abc", adapter=None)
        self.dtype, self.quantised, self.storage = "torch.float32", False, None
        self.device = SimpleNamespace(type="cpu")
        self.model = SimpleNamespace(parameters=lambda: (), buffers=lambda: ())

    def transcribe(self, loaded, audios, options):
        self.batches.append(len(audios))
        return [self.say(audio) for audio in audios]


class LoudnessDetector:
    """It takes for speech what is loud."""

    def __call__(self, frames, state):
        return (frames[:, 64:].abs().mean(dim=1) > 0.05).float(), state


def recording(name: str, *levels: float, pause: float = 5.0) -> Source:
    """Two seconds of each loudness, with pauses between them."""
    parts = []
    for level in levels:
        parts += [level * np.tile((1.0, -1.0), RATE), np.zeros(int(pause * RATE))]
    return in_memory(name, wav_bytes(np.concatenate([*parts, np.zeros(1)]), RATE))


def events(sources, model=None, request=None, **options):
    """All that a run over `sources` hands out."""
    model = model or LoudnessModel()
    options = {"lanes": 1} | options  # so that batches come in order
    return list(transcribe(sources, request or TranscribeRequest(), lambda: model, model="loudness", **options))


def records(sources, *more, **options) -> list[dict]:
    return [to_dict(event.record) for event in events(sources, *more, **options) if isinstance(event, Outcome)]
