"""Start-up and end of a process: the garbage collector rests while modules are imported, and what is due is done."""

import gc
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
