"""Start-up and end of a process: the garbage collector rests while modules are imported, and what is due is done."""

import gc
import os
import signal
import subprocess
import sys

import pytest

from mmcli import startup


@pytest.mark.parametrize("alone", [False, True])
def test_the_collector_rests_for_imports_alone(alone, monkeypatch):
    monkeypatch.setattr(startup, "_alone", alone)
    before = gc.get_freeze_count()
    try:
        with startup.starting_up():
            assert not gc.isenabled()
        assert gc.isenabled() and (gc.get_freeze_count() > before) == alone
    finally:
        gc.unfreeze()


def test_a_collector_that_was_off_stays_off():
    gc.disable()
    try:
        with startup.starting_up():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_ctrl_c_waits_for_the_end_of_imports(monkeypatch):
    monkeypatch.setattr(startup, "_alone", True)
    before, done = signal.signal(signal.SIGINT, signal.default_int_handler), False
    try:
        with pytest.raises(KeyboardInterrupt), startup.starting_up():
            os.kill(os.getpid(), signal.SIGINT)
            done = True
        assert done and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
        gc.unfreeze()


def test_another_program_s_ctrl_c_is_left_alone():
    before = signal.getsignal(signal.SIGINT)
    with startup.starting_up():
        assert signal.getsignal(signal.SIGINT) is before


def test_a_command_with_pytorch_ends_with_its_code_and_what_is_due_at_the_end():
    code = (
        "import atexit, gc, sys\n"
        "from mmcli.__main__ import main\n"
        "atexit.register(lambda: print(gc.isenabled(), gc.get_freeze_count() > 100_000, 'torch' in sys.modules))\n"
        "sys.argv = ['mmcli', 'caption', 'examples/cat.jpg', 'nothere.jpg', '--max-tokens', '2']\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout.splitlines()[-1] == "True True True"
