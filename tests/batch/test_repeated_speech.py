"""Speech that really repeats, through the bundled model: every repetition is written down, and nothing else."""

import numpy as np
import pytest
from spoken import example, letters, letters_of, talk, transcribed_together

from mmcli.speech.windows import RATE

SENTENCE = "andsomyfellowamericansasknotwhatyourcountrycandoforyouaskwhatyoucandoforyourcountry"


def repeated(audio: np.ndarray, times: int, pause: float) -> np.ndarray:
    return np.concatenate([part for _ in range(times) for part in (audio, np.zeros(int(pause * RATE), np.float32))])


SENTENCES = [(2, 0.0), (3, 0.5)]  # times, and seconds of silence behind each
PHRASES = [(6, 0.5)]


@pytest.fixture(scope="module")
def records(bundled_audio):
    """The records of all of them, in one batch: they come by (times, pause)."""
    phrase = example()[int(0.2 * RATE) : int(2.4 * RATE)]
    said = {case: example() for case in SENTENCES} | {case: phrase for case in PHRASES}
    recordings = [talk(repeated(audio, *case)) for case, audio in said.items()]
    return dict(zip(said, transcribed_together(bundled_audio, recordings), strict=True))


@pytest.mark.parametrize(("times", "pause"), SENTENCES)
def test_a_sentence_said_again_and_again(records, times, pause):
    speech, record = example(), records[times, pause]
    assert letters(record) == SENTENCE * times and record.notes == ()
    edges = [edge for segment in record.segments for edge in (segment.start, segment.end)]
    assert edges == sorted(edges) and edges[-1] > (times - 0.3) * len(speech) / RATE
    first, period = record.segments[0].start, len(speech) / RATE + pause
    starts = [segment.start for segment in record.segments if letters_of(segment.text).startswith("andsomy")]
    assert starts == pytest.approx([first + period * number for number in range(times)], abs=1.0)


@pytest.mark.parametrize(("times", "pause"), PHRASES)
def test_a_phrase_said_again_and_again(records, times, pause):
    record = records[times, pause]
    text = letters(record)
    assert text.count("fellowamericans") == times and len(text) < 24 * times, record.text
    assert record.notes == () and record.timings["unused"] == 0
