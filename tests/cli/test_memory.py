"""Where memory ends: one sentence and exit code 4, whichever library notices."""

import os
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from command import ONE_THREAD, mmcli
from PIL import Image

from mmcli.errors import ModelError, ran_out_of_memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="bounds the address space")


def confined(megabytes: int, *command: str) -> subprocess.CompletedProcess:
    limit = megabytes * 1_000_000
    return subprocess.run(
        [sys.executable, *command],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        env=os.environ | ONE_THREAD,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("megabytes", [80, 300])
@pytest.mark.parametrize("command", ["caption", "transcribe"])
def test_a_limited_address_space(tmp_path, command, megabytes):
    name = str(tmp_path / "a.png")
    Image.new("RGB", (8, 8)).save(name)
    if command == "transcribe":
        from audio_files import save_sweep

        name = str(save_sweep(tmp_path / "a.wav", 1.0))
    done = confined(megabytes, "-m", "mmcli", command, name)
    assert done.returncode == 4
    assert done.stdout == ""
    [*others, ours] = done.stderr.splitlines()
    assert ours.startswith("mmcli: There is not enough memory")
    assert all(line.startswith("OpenBLAS error: Memory allocation") for line in others)  # what it says as it gives up


# 127: the dynamic linker's; 1: OpenBLAS's
@pytest.mark.parametrize("end", ["os.abort()", "os._exit(127)", "os._exit(1)"])
def test_a_library_that_crashes_for_want_of_memory(end):
    code = f"from mmcli.cli.confined import run_apart; import os; run_apart(); {end}"
    done = confined(1000, "-c", code)
    assert done.returncode == 4 and "not enough memory" in done.stderr


def test_another_end_under_a_limit_is_passed_on():
    code = "from mmcli.cli.confined import run_apart; import sys; run_apart(); print('here'); sys.exit(3)"
    done = confined(1000, "-c", code)
    assert (done.returncode, done.stdout) == (3, "here\n")
    assert confined(1000, "-c", code.replace("exit(3)", "exit(1)")).returncode == 1
    code = "from mmcli.cli.confined import run_apart; import os; run_apart(); os.kill(os.getpid(), 15)"
    assert confined(1000, "-c", code).returncode == 128 + signal.SIGTERM


def raised(function) -> BaseException:
    try:
        function()
    except Exception as error:
        return error
    raise AssertionError("there was memory enough")


@pytest.mark.parametrize(
    "function",
    [
        lambda: torch.empty(1 << 50),
        lambda: np.empty(1 << 50),
        lambda: bytearray(1 << 50),
        lambda: Image.new("RGB", (1 << 30, 1 << 30)),
    ],
    ids=["torch", "numpy", "Python", "Pillow"],
)
def test_what_libraries_raise_is_recognised_through_what_was_made_of_it(function, monkeypatch):
    error = raised(function)
    assert ran_out_of_memory(error)
    wrapped = ModelError("The model cannot be read")
    wrapped.__cause__ = error
    assert ran_out_of_memory(wrapped)
    assert not ran_out_of_memory(ModelError("The model cannot be read"))

    def fail(*_, **__):
        raise wrapped from error

    monkeypatch.setattr("mmcli.cli.images.find_sources", fail)
    done = mmcli("caption", "a.jpg")
    assert done.code == 4
    assert done.err == "mmcli: There is not enough memory. Close other programs, raise ulimit -v, or give less.\n"


def test_one_image_that_does_not_fit_is_that_images_failure(tmp_path, monkeypatch):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr("mmcli.media.image.to_rgb", fail)
    done = mmcli("caption", tmp_path / "a.png")
    assert done.code == 1 and "a.png does not fit into memory" in done.err
