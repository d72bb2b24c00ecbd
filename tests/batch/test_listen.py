"""Recordings in batches, with ears that say what a test needs: their answers are made up, all else is real."""

import threading
import weakref
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sound_files import wav_bytes

from mmcli.batch import listen
from mmcli.batch.listen import Heard, Listener, even, shares
from mmcli.batch.runner import Outcome
from mmcli.errors import InputError, ModelError
from mmcli.media.sources import Source
from mmcli.models.family import Capabilities
from mmcli.output.record import to_dict
from mmcli.speech.fallback import DecodingOptions
from mmcli.speech.windows import RATE
from mmcli.tasks.transcribe import TranscribeRequest, joined
from mmcli.types import Segment


@dataclass
class Text:
    """What a family says of one window."""

    text: str
    seconds: float
    token_ids: tuple = (1, 2, 3)
    heard_until: float | None = None
    compression_ratio: float = 1.0
    logprob: float = -0.3
    language: str = "en"
    truncated: bool = False
    segments: tuple = field(init=False)

    def __post_init__(self):
        end = self.seconds if self.heard_until is None else self.heard_until
        self.heard_until = end
        self.segments = (Segment(0.0, end, " " + self.text),) if self.text else ()


class Ears:
    """A model that names the loudness of what it hears, as the texts of windows tell them apart."""

    def __init__(self, say=None):
        self.batches: list[int] = []
        self.say = say or (lambda sound: Text(f"{np.abs(sound).max():.2f}", len(sound) / RATE))
        self.family = SimpleNamespace(transcribe=self.transcribe)
        able = Capabilities(max_audio_seconds=30.0, timestamps="segment")
        self.processor = SimpleNamespace(is_text=lambda id: id < 100, capabilities=able)
        self.checkpoint = SimpleNamespace(name="ears", revision="abc")
        self.dtype, self.quantised = "torch.float32", False
        self.device = SimpleNamespace(type="cpu")
        self.model = SimpleNamespace(parameters=lambda: ())

    def transcribe(self, loaded, sounds, options):
        self.batches.append(len(sounds))
        return [self.say(sound) for sound in sounds]


class Loud:
    """A detector that takes for speech what is loud."""

    def __call__(self, frames, state):
        return (frames[:, 64:].abs().mean(dim=1) > 0.05).float(), state


@pytest.fixture(autouse=True)
def loudness_is_speech(monkeypatch):
    monkeypatch.setattr(Listener, "_detector_here", lambda self: Loud())


def recording(name: str, *levels: float, pause: float = 5.0) -> Source:
    """Two seconds of each loudness, with pauses between them."""
    parts = []
    for level in levels:
        parts += [level * np.tile((1.0, -1.0), RATE), np.zeros(int(pause * RATE))]
    return in_memory(name, wav_bytes(np.concatenate([*parts, np.zeros(1)]), RATE))


def in_memory(name: str, data: bytes) -> Source:
    source = Source(name, None, None, PurePosixPath(name))
    source._kept.append(data)
    return source


def events(sources, ears=None, request=None, **options):
    ears = ears or Ears()
    options = {"lanes": 1} | options  # so that batches come in order
    listener = Listener(request or TranscribeRequest(), lambda: ears, model="ears", **options)
    return list(listener.run(sources))


def records(sources, *more, **options) -> list[dict]:
    return [to_dict(event.record) for event in events(sources, *more, **options) if isinstance(event, Outcome)]


def test_windows_of_several_files_share_a_batch_and_come_out_in_order():
    ears = Ears()
    got = events([recording("a", 0.2, 0.3), recording("b", 0.4), recording("c", 0.5, 0.6)], ears, batch_size=4)
    assert ears.batches == [4, 1]
    told = [(type(event).__name__, event.source.name) for event in got]
    heard = {"a": 2, "b": 1, "c": 2}
    assert told == [event for name, n in heard.items() for event in (*[("Heard", name)] * n, ("Outcome", name))]
    assert [event.record.text for event in got if isinstance(event, Outcome)] == ["0.20 0.30", "0.40", "0.50 0.60"]


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_records_do_not_depend_on_the_batch(size):
    def plain(size):
        sources = [recording("a", 0.2, 0.3), in_memory("bad", b"nothing"), recording("c", 0.5, 0.6, 0.7)]
        return [record | {"timings": None} for record in records(sources, batch_size=size)]

    assert plain(size) == plain(5)


@pytest.mark.parametrize("lanes", [2, 3])
def test_batches_heard_at_the_same_time_come_out_in_order(lanes, request):
    """The first batch takes longest: it waits for a window of another one."""
    request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
    torch.set_num_threads(lanes)  # there are no more lanes than threads
    sources = [recording(name, *[0.2 + 0.01 * step for step in range(9)]) for name in "ab"]
    plain = events(sources, batch_size=2)
    another = threading.Event()

    def slowly(sound):
        if np.abs(sound).max() < 0.205:
            another.wait()
        elif np.abs(sound).max() > 0.225:  # in another batch than the first
            another.set()
        return Text(f"{np.abs(sound).max():.2f}", len(sound) / RATE)

    got = events(sources, Ears(slowly), batch_size=2, lanes=lanes)
    assert [type(event) for event in got] == [type(event) for event in plain]
    texts = [[event.record.text for event in side if isinstance(event, Outcome)] for side in (got, plain)]
    assert texts[0] == texts[1]


def test_what_is_left_at_the_end_is_shared_among_the_lanes():
    entries = [("a", 1), ("a", 2), ("a", None), ("b", 3), ("b", 4), ("b", 5), ("b", None)]
    assert list(shares(entries, 2)) == [entries[:4], entries[4:]]
    assert list(shares(entries, 1)) == [entries]
    assert list(shares(entries, 9)) == [entries[:1], entries[1:3], entries[3:4], entries[4:5], entries[5:]]
    assert list(shares(entries[2:3], 2)) == [entries[2:3]] and list(shares([], 2)) == []


@pytest.mark.parametrize(
    ("seconds", "lanes", "size", "reason"),
    [
        (60, 2, 8, "more may follow"),
        (300, 2, 6, "twelve windows"),
        (600, 2, 6, "twenty-three: two rounds"),
        (3600, 2, 8, "many rounds"),
        (300, 1, 6, "alone: two even batches"),
        (300, 4, 3, "a window more or less for each"),
    ],
)
def test_batches_are_of_a_size_that_lets_the_lanes_end_together(seconds, lanes, size, reason):
    assert even(8, seconds, lanes) == size, reason


def test_times_are_those_of_the_recording():
    [record] = records([recording("a", 0.2, 0.3)], start=0.0)
    (first, second) = record["segments"]
    assert first["start"] == 0 and 2 <= first["end"] <= 2.5
    assert 6.5 <= second["start"] <= 7 and 9 <= second["end"] <= 9.5
    assert record["seconds"] == pytest.approx(14, abs=0.01) and record["timings"]["left_out"] > 8


def test_the_first_batch_is_small_for_those_who_watch():
    ears = Ears()
    events([recording("a", *[0.2] * 7)], ears, batch_size=4, first_soon=True)
    assert ears.batches == [2, 4, 1]


def test_what_a_model_leaves_unheard_is_listened_to_again():
    def say(sound):
        seconds = len(sound) / RATE
        return Text("more follows", seconds, heard_until=6.0) if seconds > 10 else Text("the rest", seconds)

    [record] = records([recording("a", 0.2, 0.2, 0.2, 0.2, pause=1.0)], Ears(say))
    assert record["text"] == "more follows the rest"
    assert [segment["start"] for segment in record["segments"]] == [0.0, 6.0]


def test_silence_left_unheard_is_not_listened_to_again():
    ears = Ears(lambda sound: Text("all", len(sound) / RATE, heard_until=2.0))
    [record] = records([recording("a", 0.2)], ears)
    assert record["text"] == "all" and ears.batches == [1]


def test_a_model_that_gets_nowhere_is_left_alone():
    ears = Ears(lambda sound: Text("", len(sound) / RATE, heard_until=0.0))
    [record] = records([recording("a", 0.2)], ears)
    assert record["text"] == "" and ears.batches == [1]


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
    [record] = records([recording("a", 0.2)], Ears(lambda sound: Text(seconds=len(sound) / RATE, **said)))
    assert (record["text"], record["segments"], record["language"]) == ("", [], None)
    assert record["notes"] == [f"the text for 0:00 to 0:03 is left out: it is {reason}"]
    assert record["timings"]["unused"] == pytest.approx(2.3, abs=0.1)


@pytest.mark.parametrize("said", [{"token_ids": (7, 7, 7, 7)}, {"compression_ratio": 9.0}, {"logprob": -1.5}])
def test_what_may_well_have_been_said_stays(said):
    [record] = records([recording("a", 0.2)], Ears(lambda sound: Text("no no", len(sound) / RATE, **said)))
    assert record["text"] == "no no" and record["notes"] == []


@pytest.mark.parametrize("text", ["", " . . .", "♪♪"])
def test_where_no_words_were_made_out_is_said(text):
    ears = Ears(lambda sound: Text(text if np.abs(sound).max() < 0.25 else "words", len(sound) / RATE))
    [record] = records([recording("a", 0.2, 0.3)], ears)
    assert record["text"] == "words" and record["notes"] == ["no words were recognised from 0:00 to 0:03"]
    assert record["timings"]["unused"] > 2


def halved(whole: dict, part: dict) -> tuple[list[str], int]:
    """What is written of six seconds of which the whole and any shorter part are heard so."""

    def say(sound):
        seconds = len(sound) / RATE
        return Text(seconds=seconds, **(whole if seconds > 5 else part))

    ears = Ears(say)
    [record] = records([recording("a", 0.2, 0.2, 0.2, pause=0.1)], ears)
    return [segment["text"] for segment in record["segments"]], sum(ears.batches)


def test_a_text_that_repeats_itself_is_compared_with_those_of_the_halves():
    circles = {"text": "so so so so so so", "compression_ratio": 9.0, "truncated": True, "logprob": -0.1}
    assert halved(circles, {"text": "so it is"}) == (["so it is", "so it is"], 3)
    twice = {"text": "so it is so it is", "compression_ratio": 2.2}
    assert halved(twice, {"text": "so it is", "logprob": -0.5}) == (["so it is so it is"], 3)
    assert halved(twice, {"text": "so it is", "logprob": -0.2}) == (["so it is", "so it is"], 3)
    assert halved(twice, {"text": "so it is and is"}) == (["so it is and is", "so it is and is"], 3)
    assert halved({"text": "so it is"}, circles) == (["so it is"], 1)
    assert halved(twice, circles)[0] == ["so it is so it is"]


def test_without_speech_nothing_is_loaded():
    def load():
        raise AssertionError("loaded in vain")

    listener = Listener(TranscribeRequest(), load, model="ears")
    [outcome] = listener.run([recording("quiet", 0.0)])
    assert outcome.record.text == "" and outcome.record.notes == ("no speech was found in it",)
    assert outcome.record.timings["real_time_factor"] < 1


def test_a_bad_recording_is_a_record_in_its_place():
    got = records([recording("a", 0.2), in_memory("bad.wav", b"nothing"), recording("c", 0.3)])
    assert [record["source"] for record in got] == ["a", "bad.wav", "c"]
    assert ["error" in record for record in got] == [False, True, False]
    assert got[1]["task"] == "transcribe" and "bad.wav" in got[1]["error"]


def test_an_error_that_nobody_foresaw_is_one_failed_recording():
    class Strange(Source):
        def head(self, *limits):
            raise ZeroDivisionError("strange")

    strange, fine = records([Strange("strange", None, None, PurePosixPath("strange")), recording("a", 0.2)])
    assert "strange cannot be read (ZeroDivisionError: strange)" in strange["error"] and fine["text"] == "0.20"


def test_a_model_without_ears_is_refused():
    deaf = Ears()
    deaf.processor.capabilities = Capabilities()
    with pytest.raises(ModelError, match="ears takes no audio"):
        events([recording("a", 0.2)], deaf)


def test_memory_that_runs_out_is_one_sentence():
    def say(sound):
        raise RuntimeError("DefaultCPUAllocator: not enough memory")

    with pytest.raises(ModelError, match="Memory ran out on 2 windows at once"):
        events([recording("a", 0.2, 0.3)], Ears(say))


def test_sound_does_not_pile_up():
    """Sixty windows; at no time is the sound of more of them alive than a batch needs."""
    made, most = [], []

    def say(sound):
        most.append(sum(window() is not None for window in made))
        return Text("x", len(sound) / RATE)

    ears = Ears(say)
    window = listen.Speech._window

    def watched(self, *where):
        new = window(self, *where)
        made.append(weakref.ref(new))
        return new

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listen.Speech, "_window", watched)
        events([recording(str(number), *[0.2] * 20) for number in range(3)], ears, batch_size=4)
    assert len(most) == 60 and max(most) <= 3 * 4 + 2  # heard, waiting, being filled


def test_progress_rises_to_the_end():
    got = [event for event in events([recording("a", 0.2, 0.3, 0.4)]) if isinstance(event, Heard)]
    assert [event.reached for event in got] == sorted(event.reached for event in got)
    assert got[-1].reached <= got[-1].length == pytest.approx(21, abs=0.01)


def test_the_settings_reach_the_model():
    request = TranscribeRequest(task="translate", language="de", hint="Anna", beams=3, temperature=0.5, seed=7)
    settings = {"task": "translate", "language": "de", "hint": "Anna", "beams": 3, "temperatures": (0.5,), "seed": 7}
    assert request.options() == DecodingOptions(**settings, spoken_to_end=True)
    assert TranscribeRequest().options() == DecodingOptions(spoken_to_end=True)


@pytest.mark.parametrize(
    ("texts", "whole"),
    [
        ([" One.", " Two."], "One. Two."),
        (["One.", "Two."], "One. Two."),
        (["一。", "二。"], "一。二。"),
        ([" One", "", " two"], "One two"),
        ([], ""),
    ],
)
def test_texts_of_windows_are_joined_as_their_language_does(texts, whole):
    assert joined(texts) == whole


def test_the_batch_is_small_where_the_model_is_large():
    large = Ears()
    large.model = SimpleNamespace(parameters=lambda: [SimpleNamespace(numel=lambda: 10**9)])
    assert listen.default_batch_size(large) < listen.default_batch_size(Ears()) < 16
    large.device = SimpleNamespace(type="cuda")
    assert listen.default_batch_size(large) == 16


def test_an_input_error_keeps_its_words():
    outcome = next(event for event in events([in_memory("e.wav", b"")]) if isinstance(event, Outcome))
    assert isinstance(outcome.error, InputError) and outcome.record.error == str(outcome.error)
