"""How threads wait and how many there are, settled before PyTorch is imported."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command import PATIENCE, running

from mmcli.engine import cpu


def test_threads_sleep_while_they_wait_unless_the_user_said_how():
    variables: dict[str, str] = {}
    cpu.settle_threads(variables)
    assert variables["OMP_WAIT_POLICY"] == "PASSIVE"
    for name in cpu.WAITING:
        chosen = {name: "as I like"}
        cpu.settle_threads(chosen)
        assert {key: chosen.get(key) for key in cpu.WAITING if key in chosen} == {name: "as I like"}


@pytest.mark.parametrize("name", cpu.COUNTING)
def test_a_number_of_threads_that_was_set_stays(name, monkeypatch):
    monkeypatch.setattr(cpu, "free_cores", lambda: 0)
    variables = {name: "7"}
    cpu.settle_threads(variables)
    assert {key: value for key, value in variables.items() if key in cpu.COUNTING} == {name: "7"}


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system knows no affinity")
def test_no_more_threads_than_cores_that_the_process_may_use():
    """The real command in a process that may use one core: PyTorch has one thread."""
    core = min(os.sched_getaffinity(0))
    code = (
        f"import os; os.sched_setaffinity(0, [{core}])\n"
        "import sys; sys.argv = ['mmcli', '--version']\n"
        "from mmcli.__main__ import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "import torch; print(torch.get_num_threads(), os.environ['OMP_WAIT_POLICY'])"
    )
    variables = {key: value for key, value in os.environ.items() if key not in (*cpu.WAITING, *cpu.COUNTING)}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, timeout=PATIENCE)
    assert done.stdout.splitlines()[1:] == ["1 PASSIVE"], done.stderr


@pytest.mark.parametrize(
    ("text", "others"),
    [
        ("0.10 0.20 0.30 1/95 77", 0),
        ("8.90 4.00 2.00 9/400 77", 8),
        ("8.90 4.00 2.00 1/400 77", 0),  # it is over
        ("0.90 0.00 0.00 5/400 77", 0),  # it has only begun, and may be over soon
        ("", 0),
        ("nonsense", 0),
    ],
)
def test_busy_cores_are_counted_when_they_are_busy_now_and_have_been(text, others, tmp_path, monkeypatch):
    path = tmp_path / "loadavg"
    path.write_text(text)
    monkeypatch.setattr(cpu, "LOAD", path)
    assert cpu._others() == others


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu.max": "much"}, None),
        ({}, None),
    ],
)
def test_the_quota_of_a_container_counts(files: dict[str, str], cores, tmp_path: Path, monkeypatch):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(cpu, "CONTROL_GROUP", tmp_path)
    assert cpu._quota() == cores
    assert cpu.allowed_cores() == min(len(os.sched_getaffinity(0)), -(-cores // 1) if cores else 999)


def test_a_job_that_ignores_interrupts_goes_on_doing_so():
    """`nohup bash -c 'mmcli … &'`: a Ctrl-C for others is none for it."""
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "import sys; sys.argv = ['mmcli', 'caption', '-']\n"
        "from mmcli.__main__ import main\n"
        "print('ready', flush=True); main()"
    )
    with running(sys.executable, "-c", code, stdin=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"ready\n"
        os.kill(child.pid, signal.SIGINT)
        out, err = child.communicate(b"no picture", timeout=PATIENCE)
    assert child.returncode == 1 and b"Traceback" not in err and b"mmcli: " in err
