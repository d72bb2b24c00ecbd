"""What becomes of a window's text: what is left out, what repeats itself, what nobody can have said."""

import numpy as np
import pytest
from loudness import LoudnessModel, Text, recording, records

from mmcli.speech.windows import RATE

pytestmark = pytest.mark.usefixtures("loudness_is_speech")


def test_what_a_model_leaves_out_is_transcribed_again():
    def say(audio):
        seconds = len(audio) / RATE
        return Text("more follows", seconds, transcribed_until=6.0) if seconds > 10 else Text("the rest", seconds)

    [record] = records([recording("a", 0.2, 0.2, 0.2, 0.2, pause=1.0)], LoudnessModel(say))
    assert record["text"] == "more follows the rest"
    assert [segment["start"] for segment in record["segments"]] == [0.0, 6.0]


def test_silence_left_out_is_not_transcribed_again():
    model = LoudnessModel(lambda audio: Text("all", len(audio) / RATE, transcribed_until=2.0))
    [record] = records([recording("a", 0.2)], model)
    assert record["text"] == "all" and model.batches == [1]


def test_a_model_that_gets_nowhere_is_left_alone():
    model = LoudnessModel(lambda audio: Text("", len(audio) / RATE, transcribed_until=0.0))
    [record] = records([recording("a", 0.2)], model)
    assert record["text"] == "" and model.batches == [1]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"truncated": True}, "one that repeats itself endlessly"),
        ({"logprob": -1.2}, "an unlikely one that repeats itself"),
        ({"text": "no no " * 20}, "one that repeats itself faster than anybody speaks"),
    ],
)
def test_what_nobody_can_have_said_is_left_out_and_said(said, reason):
    said = {"text": "no no no", "compression_ratio": 2.5} | said
    [record] = records([recording("a", 0.2)], LoudnessModel(lambda audio: Text(seconds=len(audio) / RATE, **said)))
    assert (record["text"], record["segments"], record["language"]) == ("", [], None)
    assert record["notes"] == [f"the text for 0:00 to 0:03 is left out: it is {reason}"]
    assert record["timings"]["unused"] == pytest.approx(2.3, abs=0.1)


@pytest.mark.parametrize("said", [{"token_ids": (7, 7, 7, 7)}, {"compression_ratio": 9.0}, {"logprob": -1.5}])
def test_what_may_well_have_been_said_stays(said):
    [record] = records([recording("a", 0.2)], LoudnessModel(lambda audio: Text("no no", len(audio) / RATE, **said)))
    assert record["text"] == "no no" and record["notes"] == []


@pytest.mark.parametrize("text", ["", " . . .", "♪♪"])
def test_where_no_words_were_made_out_is_said(text):
    model = LoudnessModel(lambda audio: Text(text if np.abs(audio).max() < 0.25 else "words", len(audio) / RATE))
    [record] = records([recording("a", 0.2, 0.3)], model)
    assert record["text"] == "words" and record["notes"] == ["no words were recognised from 0:00 to 0:03"]
    assert record["timings"]["unused"] > 2


def halved(whole: dict, part: dict) -> tuple[list[str], int]:
    """What is written of six seconds of which the whole and any shorter part are transcribed so."""

    def say(audio):
        seconds = len(audio) / RATE
        return Text(seconds=seconds, **(whole if seconds > 5 else part))

    model = LoudnessModel(say)
    [record] = records([recording("a", 0.2, 0.2, 0.2, pause=0.1)], model)
    return [segment["text"] for segment in record["segments"]], sum(model.batches)


def test_a_text_that_repeats_itself_is_compared_with_those_of_the_halves():
    circles = {"text": "so so so so so so", "compression_ratio": 9.0, "truncated": True, "logprob": -0.1}
    assert halved(circles, {"text": "so it is"}) == (["so it is", "so it is"], 3)
    twice = {"text": "so it is so it is", "compression_ratio": 2.2}
    assert halved(twice, {"text": "so it is", "logprob": -0.5}) == (["so it is so it is"], 3)
    assert halved(twice, {"text": "so it is", "logprob": -0.2}) == (["so it is", "so it is"], 3)
    assert halved(twice, {"text": "so it is and is"}) == (["so it is and is", "so it is and is"], 3)
    assert halved({"text": "so it is"}, circles) == (["so it is"], 1)
    assert halved(twice, circles)[0] == ["so it is so it is"]
