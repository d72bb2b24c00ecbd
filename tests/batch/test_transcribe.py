"""Recordings in batches, with a model that says what a test needs."""

import threading
import weakref
from functools import partial
from pathlib import PurePosixPath

import numpy as np
import pytest
import torch
from file_sources import in_memory
from loudness import LoudnessModel, Text, events, recording, records

from mmcli.batch.outcome import Outcome
from mmcli.batch.transcribe import PartialTranscript, transcribe
from mmcli.errors import InputError, ModelError
from mmcli.media.sources import Source
from mmcli.models.family import Capabilities
from mmcli.speech.windows import RATE, Speech
from mmcli.tasks.transcribe import TranscribeRequest

pytestmark = pytest.mark.usefixtures("loudness_is_speech")


def test_windows_of_several_files_share_a_batch_and_come_out_in_order():
    model = LoudnessModel()
    got = events([recording("a", 0.2, 0.3), recording("b", 0.4), recording("c", 0.5, 0.6)], model, batch_size=4)
    assert model.batches == [4, 1]
    kinds = [(type(event).__name__, event.source.name) for event in got]
    passages = {"a": 2, "b": 1, "c": 2}
    assert kinds == [
        event for name, n in passages.items() for event in (*[("PartialTranscript", name)] * n, ("Outcome", name))
    ]
    assert [event.record.text for event in got if isinstance(event, Outcome)] == ["0.20 0.30", "0.40", "0.50 0.60"]


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_records_do_not_depend_on_the_batch(size):
    def plain(size):
        sources = [recording("a", 0.2, 0.3), in_memory("bad", b"nothing"), recording("c", 0.5, 0.6, 0.7)]
        return [record | {"timings": None} for record in records(sources, batch_size=size)]

    assert plain(size) == plain(5)


@pytest.mark.parametrize("lanes", [2, 3])
def test_batches_transcribed_at_the_same_time_come_out_in_order(lanes, request):
    """The first batch takes longest: it waits for a window of another one."""
    request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
    torch.set_num_threads(lanes)  # there are no more lanes than threads
    sources = [recording(name, *[0.2 + 0.01 * step for step in range(9)]) for name in "ab"]
    plain = events(sources, batch_size=2)
    another = threading.Event()

    def slowly(audio):
        if np.abs(audio).max() < 0.205:
            another.wait()
        elif np.abs(audio).max() > 0.225:  # in another batch than the first
            another.set()
        return Text(f"{np.abs(audio).max():.2f}", len(audio) / RATE)

    got = events(sources, LoudnessModel(slowly), batch_size=2, lanes=lanes)
    assert [type(event) for event in got] == [type(event) for event in plain]
    texts = [[event.record.text for event in side if isinstance(event, Outcome)] for side in (got, plain)]
    assert texts[0] == texts[1]


def test_times_are_those_of_the_recording():
    [record] = records([recording("a", 0.2, 0.3)], start=0.0)
    (first, second) = record["segments"]
    assert first["start"] == 0 and 2 <= first["end"] <= 2.5
    assert 6.5 <= second["start"] <= 7 and 9 <= second["end"] <= 9.5
    assert record["seconds"] == pytest.approx(14, abs=0.01) and record["timings"]["left_out"] > 8


def test_without_speech_nothing_is_loaded():
    def load():
        raise AssertionError("loaded in vain")

    [outcome] = transcribe([recording("quiet", 0.0)], TranscribeRequest(), load, model="loudness")
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


def test_a_model_that_takes_no_audio_is_refused():
    model = LoudnessModel()
    model.processor.capabilities = Capabilities()
    with pytest.raises(ModelError, match="loudness takes no audio"):
        events([recording("a", 0.2)], model)


def test_memory_that_runs_out_is_one_sentence():
    def say(audio):
        raise RuntimeError("DefaultCPUAllocator: not enough memory")

    with pytest.raises(ModelError, match="Memory ran out on 2 windows at once"):
        events([recording("a", 0.2, 0.3)], LoudnessModel(say))


def test_audio_does_not_pile_up():
    """Sixty windows; at no time is the audio of more of them alive than a batch needs."""
    made, most = [], []

    def say(audio):
        most.append(sum(window() is not None for window in made))
        return Text("x", len(audio) / RATE)

    model = LoudnessModel(say)
    window = Speech._window

    def watched(self, *where):
        new = window(self, *where)
        made.append(weakref.ref(new))
        return new

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Speech, "_window", watched)
        events([recording(str(number), *[0.2] * 20) for number in range(3)], model, batch_size=4)
    assert len(most) == 60 and max(most) <= 3 * 4 + 2  # transcribed, waiting, being filled


def test_progress_rises_to_the_end():
    got = [event for event in events([recording("a", 0.2, 0.3, 0.4)]) if isinstance(event, PartialTranscript)]
    assert [event.reached for event in got] == sorted(event.reached for event in got)
    assert got[-1].reached <= got[-1].length == pytest.approx(21, abs=0.01)


def test_an_input_error_keeps_its_words():
    outcome = next(event for event in events([in_memory("e.wav", b"")]) if isinstance(event, Outcome))
    assert isinstance(outcome.error, InputError) and outcome.record.error == str(outcome.error)


def test_what_a_record_tells_of_the_model_does_not_depend_on_when_it_is_there():
    """A recording that ends before the first speech is answered without a model, even if that is loaded by then."""
    sources = [in_memory("bad.wav", b"nothing"), recording("quiet", 0.0), recording("a", 0.2), in_memory("b.wav", b"")]
    got = records(sources, revision="given", batch_size=1)
    assert [record["revision"] for record in got] == ["given", "given", "abc", "abc"]
    assert [record["settings"].get("dtype") for record in got] == [None, None, "float32", "float32"]


def test_a_model_that_cannot_be_loaded_takes_back_no_record():
    def load():
        raise ModelError("It is damaged", "Get another")

    run = transcribe(
        [in_memory("bad.wav", b"nothing"), recording("a", 0.2)], TranscribeRequest(), load, model="damaged"
    )
    assert "bad.wav" in next(run).record.error
    with pytest.raises(ModelError, match="It is damaged"):
        next(run)
