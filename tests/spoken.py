"""The example of speech through the bundled model, and recordings that are made of it."""

import re
from difflib import SequenceMatcher
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from audio_files import wav_bytes
from file_sources import in_memory

from mmcli.batch.outcome import Outcome
from mmcli.batch.transcribe import transcribe
from mmcli.media.audio import RATE, read_audio
from mmcli.media.sources import Source, expand
from mmcli.models.loaded import Loaded
from mmcli.output.schema import Record
from mmcli.tasks.transcribe import TranscribeRequest

EXAMPLE = Path(__file__).parents[1] / "examples" / "jfk.flac"


@cache
def example() -> np.ndarray:
    """Eleven seconds of speech, float32 [samples] at 16 kHz."""
    [source] = expand([EXAMPLE], extensions=frozenset())
    samples = read_audio(source)[0]
    samples.flags.writeable = False
    return samples


def talk(*channels: np.ndarray) -> Source:
    """A recording of these channels [samples] at 16 kHz; what is louder than full scale is clipped."""
    samples = channels[0] if len(channels) == 1 else np.stack(channels, axis=1)
    return in_memory("talk.wav", wav_bytes(np.clip(samples, -1, 1), RATE))


def transcribed(loaded: Loaded, recording: Source, **options) -> Record:
    """The record of a recording; `options` are those of `transcribe`."""
    [record] = transcribed_together(loaded, [recording], **options)
    return record


def transcribed_together(loaded: Loaded, recordings: list[Source], **options) -> list[Record]:
    """The records of several recordings, whose windows share batches."""
    events = transcribe(
        recordings, TranscribeRequest(), lambda: loaded, model=loaded.checkpoint.name, lanes=1, **options
    )
    return [event.record for event in events if isinstance(event, Outcome)]


def letters(record: Record) -> str:
    """What is said, without spaces, punctuation and capitals."""
    return letters_of(record.text)


def letters_of(text: str | None) -> str:
    return "".join(char for char in (text or "").lower() if char.isalpha())


def assert_alike(found: str, expected: str) -> None:
    """Of transcripts: nearly all words, and times to a tenth of a second.

    Processors round the int8 products of speech models differently, which decides commas and between words that are
    about as likely. The exact tokens are pinned in float32.
    """
    words, wanted = (re.findall(r"[^\W\d]+", text.lower()) for text in (found, expected))
    assert SequenceMatcher(None, words, wanted, autojunk=False).ratio() > 0.8
    times, shown = (
        [float(one.replace(",", ".")) for one in re.findall(r"\d+[.,]\d+", text)] for text in (found, expected)
    )
    assert times == pytest.approx(shown, abs=0.1)
