"""Speech that really repeats, through the bundled model: every repetition is written down, and nothing else."""

from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch
from sound_files import wav_bytes

from mmcli.batch.listen import Listener
from mmcli.batch.runner import Outcome
from mmcli.hub.resolve import resolve
from mmcli.media.audio import RATE, read_sound
from mmcli.media.sources import Source, expand
from mmcli.models.load import load
from mmcli.output.record import to_dict
from mmcli.tasks.transcribe import TranscribeRequest

SENTENCE = "andsomyfellowamericansasknotwhatyourcountrycandoforyouaskwhatyoucandoforyourcountry"


@pytest.fixture(scope="module")
def bundled():
    torch.set_num_threads(1)
    return load(resolve("whisper-tiny.en"), "cpu")


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    [source] = expand([Path(__file__).parents[2] / "examples" / "jfk.flac"], extensions=frozenset())
    return read_sound(source)[0]


def repeated(sound: np.ndarray, times: int, pause: float) -> np.ndarray:
    return np.concatenate([part for _ in range(times) for part in (sound, np.zeros(int(pause * RATE), np.float32))])


def heard(loaded, samples: np.ndarray) -> dict:
    source = Source("talk.wav", None, None, PurePosixPath("talk.wav"))
    source._kept.append(wav_bytes(samples, RATE))
    listener = Listener(TranscribeRequest(), lambda: loaded, model="whisper-tiny.en", lanes=1)
    return next(to_dict(event.record) for event in listener.run([source]) if isinstance(event, Outcome))


def letters(text: str) -> str:
    return "".join(char for char in text.lower() if char.isalpha())


@pytest.mark.parametrize(("times", "pause"), [(2, 0.0), (3, 0.5)])
def test_a_sentence_said_again_and_again(bundled, speech, times, pause):
    record = heard(bundled, repeated(speech, times, pause))
    assert letters(record["text"]) == SENTENCE * times and record["notes"] == []
    edges = [edge for segment in record["segments"] for edge in (segment["start"], segment["end"])]
    assert edges == sorted(edges) and edges[-1] > (times - 0.3) * len(speech) / RATE
    first, period = record["segments"][0]["start"], len(speech) / RATE + pause
    starts = [segment["start"] for segment in record["segments"] if letters(segment["text"]).startswith("andsomy")]
    assert starts == pytest.approx([first + period * number for number in range(times)], abs=1.0)


@pytest.mark.parametrize(("times", "pause"), [(5, 1.2), (10, 0.5)])
def test_a_phrase_said_again_and_again(bundled, speech, times, pause):
    record = heard(bundled, repeated(speech[int(0.2 * RATE) : int(2.4 * RATE)], times, pause))
    text = letters(record["text"])
    assert text.count("fellowamericans") == times and len(text) < 24 * times, record["text"]
    assert record["notes"] == [] and record["timings"]["unused"] == 0
