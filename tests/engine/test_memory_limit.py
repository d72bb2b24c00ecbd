"""How much memory there is: of the machine, of a control group, of the address space. And what becomes of freed one."""

import os
import platform
import subprocess
import sys

import pytest
import torch

from mmcli.engine import memory

GB = 1 << 30


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Control groups of the test's own; the machine has 24 GB and no other limit."""
    monkeypatch.setattr(memory, "CONTROL_GROUP", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "OWN_GROUP", tmp_path / "own")
    monkeypatch.setattr(memory, "_installed", lambda: 24 * GB)
    monkeypatch.setattr(memory, "_of_address_space", lambda: None)

    def write(own: str, **limits: object) -> None:
        (tmp_path / "own").write_text(own)
        for name, limit in limits.items():
            path = tmp_path / "cgroup" / name.replace("__", "/").replace("_max", ".max")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{limit}\n")

    return write


def test_without_a_group(groups):
    assert memory.memory_limit() == 24 * GB


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"memory_max": "max"}, 24),
        ({"memory_max": 4 * GB}, 4),
        ({"a__b__memory_max": 3 * GB}, 3),
        ({"a__memory_max": 2 * GB, "a__b__memory_max": "max"}, 2),  # the group around it
        ({"a__b__memory_max": 99 * GB}, 24),  # more than there is
        ({"a__b__memory_max": "nonsense"}, 24),
    ],
)
def test_version_2(groups, limits, expected):
    groups("0::/a/b\n", **limits)
    assert memory.memory_limit() == expected * GB


def test_version_1(groups, tmp_path):
    groups("3:cpu:/x\n9:memory:/docker/abc\n")
    path = tmp_path / "cgroup/memory/docker/abc/memory.limit_in_bytes"
    path.parent.mkdir(parents=True)
    path.write_text(str(5 * GB))
    assert memory.memory_limit() == 5 * GB


def test_the_least_counts(groups, monkeypatch):
    groups("0::/\n", memory_max=4 * GB)
    monkeypatch.setattr(memory, "_of_address_space", lambda: 3 * GB)
    assert memory.memory_limit() == 3 * GB


def test_a_machine_that_does_not_tell(groups, monkeypatch):
    monkeypatch.setattr(memory, "_installed", lambda: None)
    assert memory.memory_limit() is None


# Page faults of the second time that 12 MB in six pieces are taken, used and freed: by the same thread, or by another
# while the first still lives.
_AGAIN = """
import ctypes, resource, sys, threading
from mmcli.engine.memory import keep_freed
library = ctypes.CDLL(None)
library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
library.free.argtypes = [ctypes.c_void_p]
if sys.argv[1] == "kept":
    keep_freed()
def use():
    pieces = [library.malloc(2 << 20) for _ in range(6)]
    for piece in pieces:
        ctypes.memset(piece, 1, 2 << 20)
    for piece in pieces:
        library.free(piece)
def again():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    use()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
def in_a_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()
def work():
    use()
    again() if sys.argv[2] == "same" else in_a_thread(again)
in_a_thread(work)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such setting")
@pytest.mark.parametrize(
    ("wanted", "variables", "kept"),
    [("kept", {}, True), ("as ever", {}, False), ("kept", {"MALLOC_TRIM_THRESHOLD_": "131072"}, False)],
)
@pytest.mark.parametrize("thread", ["same", "another"])
def test_freed_memory_is_used_again_without_page_faults_unless_the_user_set_otherwise(wanted, variables, kept, thread):
    variables = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")} | variables
    done = subprocess.run([sys.executable, "-c", _AGAIN, wanted, thread], env=variables, capture_output=True, text=True)
    assert (int(done.stdout) < 200) == kept, done.stdout + done.stderr


@pytest.mark.parametrize("first", [0, 1, 4095])
@pytest.mark.parametrize("size", [0, 100, 5 << 20])
def test_memory_can_be_used_wherever_huge_pages_would_begin(first, size):
    numbers = torch.empty(6 << 20, dtype=torch.uint8)
    numbers[: first + size] = 7
    memory.use_huge_pages(numbers.data_ptr() + first, size)
    assert (numbers[: first + size] == 7).all()
    numbers.fill_(3)
    assert (numbers == 3).all()
