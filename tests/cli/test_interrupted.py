"""Ctrl-C, and a signal to end, in a run over many inputs: how far it came is said, and nothing is left half done."""

import os
import re
import signal
import sys
from pathlib import Path

import pytest
from command import Terminal, finish, held_back, running, running_mmcli

EXAMPLE = Path(__file__).parents[2] / "examples" / "jfk.flac"

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no such signals")


def interrupted_after_a_line(number: int, *arguments: object) -> tuple[int, bytes, str]:
    """Send a signal to a command's group once a line is there → its exit code, all it wrote, what it said."""
    with running_mmcli(*arguments) as command:
        line = command.stdout.readline()
        os.killpg(command.pid, number)
        rest, err = finish(command)
        return command.returncode, line + rest, err.decode()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_over_images_says_how_far_it_came(album, tiny, number, code):
    command = ("caption", "album", "waiting.png", "--model", tiny, "--max-tokens", 2, "--batch-size", 3)
    with held_back("waiting.png"):
        ended, out, err = interrupted_after_a_line(number, *command)
    assert ended == code and "Traceback" not in err
    assert "mmcli: interrupted after " in err and " of 4 pictures; what was written by then is complete\n" in err
    assert out.count(b"album/") == out.count(b"\n") >= 1 and out.endswith(b"\n")


def test_a_run_over_recordings_says_how_far_it_came(tmp_path, tiny_audio):
    command = ("transcribe", EXAMPLE, tmp_path / "waiting.wav", "--json", "--batch-size", 1, "--model", tiny_audio)
    with held_back(tmp_path / "waiting.wav"):
        code, out, err = interrupted_after_a_line(signal.SIGINT, *command)
    assert (code, out.count(b"\n")) == (130, 1) and "Traceback" not in err
    assert re.search(r"mmcli: interrupted after [01] of 2 recordings[ ;]", err)  # the line is written, then counted


def test_a_recording_that_is_not_through_is_said_in_its_own_time(tmp_path, tiny_audio):
    names = (EXAMPLE, tmp_path / "waiting.wav")
    with held_back(tmp_path / "waiting.wav"):
        terminal = Terminal("transcribe", *names, "--batch-size", "1", "--format", "jsonl", "--model", tiny_audio)
        terminal.until("× real time")
        terminal.type("\x03")
        assert terminal.end() == 130, terminal.screen
    assert " of 2 recordings" in " ".join(terminal.screen.decode().split())


INTERRUPTED_AS_NUMPY_IS_IMPORTED = """
import sys


class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "numpy":
            sys.meta_path.remove(self)  # once
            raise KeyboardInterrupt


sys.meta_path.insert(0, Interrupting())
from mmcli.__main__ import main

sys.exit(main())
"""


def test_ctrl_c_while_libraries_are_imported_ends_the_command():
    """PyTorch would take it for NumPy's not being installed, and the run would go on to its end."""
    image = EXAMPLE.with_name("astronaut.jpg")
    with running(sys.executable, "-c", INTERRUPTED_AS_NUMPY_IS_IMPORTED, "caption", image) as command:
        out, err = finish(command)
    assert (command.returncode, out) == (130, b""), err
    assert b"Traceback" not in err


INTERRUPTED_AS_PYTORCH_ASKS_FOR_A_SHAPE = """
import os, signal, sys

from mmcli.__main__ import main
import torch
from mmcli.hub import weights


class Row:
    def __len__(self):
        return 1

    def __getitem__(self, place):
        os.kill(os.getpid(), signal.SIGINT)
        return 0.0


def interrupted(folder, read=weights._tensors):
    torch.tensor(Row())
    return read(folder)


weights._tensors = interrupted
sys.exit(main())
"""


def test_ctrl_c_that_pytorch_makes_another_error_of_ends_the_command():
    """Its C++ drops the KeyboardInterrupt and says that it cannot determine the shape of the object."""
    image = EXAMPLE.with_name("astronaut.jpg")
    with running(sys.executable, "-c", INTERRUPTED_AS_PYTORCH_ASKS_FOR_A_SHAPE, "caption", image) as command:
        out, err = finish(command)
    assert (command.returncode, out) == (130, b""), err
    assert b"shape" not in err and b"Traceback" not in err


TOLD_TWICE = """
import atexit, os, signal, sys

from mmcli.__main__ import main

atexit.register(os.kill, os.getpid(), signal.SIGTERM)  # while the process tidies up
sys.exit(main())
"""


def test_a_second_signal_changes_nothing_about_the_end(tmp_path):
    recordings = (EXAMPLE, tmp_path / "waiting.wav")
    with (
        held_back(tmp_path / "waiting.wav"),
        running(sys.executable, "-c", TOLD_TWICE, "transcribe", *recordings, "--json", "--batch-size", "1") as command,
    ):
        command.stdout.readline()
        os.kill(command.pid, signal.SIGTERM)
        _, err = finish(command)
    assert command.returncode == 143 and b"Traceback" not in err, err
