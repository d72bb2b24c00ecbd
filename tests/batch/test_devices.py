"""Several processes on one machine: the same outcomes, whatever becomes of a process."""

import signal

import pytest
from fragile import CHOICE, Fragile, texts

from mmcli.batch.devices import _Pool, chosen_devices, run
from mmcli.batch.outcome import ending
from mmcli.batch.work import Desk, ImageWork, RecordingWork
from mmcli.errors import MachineError, ModelError, UsageError
from mmcli.tasks.caption import CaptionRequest
from mmcli.tasks.transcribe import TranscribeRequest

TWO = ["cpu", "cpu"]


def said(outcome):
    return outcome.record.error or outcome.record.text


def test_a_process_that_dies_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = texts(tmp_path, 20)
    answers = sorted(run(Fragile(CHOICE, once="03.txt", always="11.txt"), found, TWO), key=lambda answer: answer[0])
    assert [number for number, _ in answers] == list(range(21))
    assert [outcome.source for _, outcome in answers] == found
    good = [f"this is {number:02}.txt" for number in range(20)]
    why = "every process that worked on it ended, the last by SIGKILL"
    expected = [*good[:11], f"11.txt cannot be read: {why}. Try it alone, with --debug.", *good[12:]]
    assert [said(outcome) for _, outcome in answers[:20]] == expected
    assert "nowhere.txt does not exist" in said(answers[20][1])


def test_an_error_of_the_model_ends_the_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="It will not. Ask another"):
        list(run(Fragile(CHOICE, refused="01.txt"), texts(tmp_path, 4), ["cpu"]))


def test_processes_that_only_die_end_the_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = texts(tmp_path, 1)[:1] * 8
    with pytest.raises(MachineError, match="The process for cpu ended by SIGKILL, whatever it was given"):
        list(run(Fragile(CHOICE, always="00.txt"), found, ["cpu"]))


def test_nothing_to_do_is_done():
    assert list(run(Fragile(CHOICE), [], ["cpu"])) == []


def test_a_process_has_a_batch_in_hand_and_one_that_follows(monkeypatch):
    monkeypatch.setattr(_Pool, "_start", lambda self, device: device)
    images, recordings = ImageWork(CHOICE, CaptionRequest()), RecordingWork(CHOICE, TranscribeRequest())
    large = ImageWork(CHOICE, CaptionRequest(), batch_size=40)
    for work, device, window in (
        (images, "cuda:1", 64),
        (images, "cpu", 32),
        (large, "cuda:1", 80),
        (recordings, "cuda:1", 32),
    ):
        assert _Pool(work, [], ["cpu", device], Desk(work))._window == window


def test_how_a_process_ended_is_named():
    assert ending(1) == "with exit code 1"
    assert ending(-signal.SIGKILL) == "by SIGKILL"
    assert ending(-1000) == "by signal 1000"


def test_devices_are_named(monkeypatch):
    assert chosen_devices("cpu, cpu") == TWO
    for text, why in (("", "names no devices"), ("auto", "names no devices"), ("gpu", "no device 'gpu'")):
        with pytest.raises(UsageError, match=why):
            chosen_devices(text)
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert chosen_devices("all") == ["cuda:0", "cuda:1"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UsageError, match="no CUDA device"):
        chosen_devices("all")
