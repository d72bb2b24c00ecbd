"""--devices: several processes write what one would write, in the order of the inputs."""

import multiprocessing
import os
import select
import shutil
import signal
import sys
from pathlib import Path

import pytest
from command import PATIENCE, finish, mmcli, running

from mmcli.batch import devices

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def photos(tmp_path, monkeypatch):
    """Three photographs, and a file that is none."""
    monkeypatch.chdir(tmp_path)
    Path("photos/sub").mkdir(parents=True)
    for source, name in (("cat.jpg", "a.jpg"), ("astronaut.jpg", "sub/b.jpg"), ("tower.jpg", "c.jpg")):
        shutil.copy(EXAMPLES / source, Path("photos", name))
    Path("photos/b.jpg").write_bytes(b"no picture")


@pytest.fixture
def have_torch(monkeypatch):
    """The processes are forked from one that has imported PyTorch; as a user has them, each does so by itself."""
    forking = multiprocessing.get_context("forkserver")
    forking.set_forkserver_preload(["torch"])
    monkeypatch.setattr(devices, "_SPAWN", forking)


@pytest.mark.usefixtures("have_torch")
def test_results_are_those_of_one_process():
    command = ("detect", "cat ; person", "photos", "--json", "--batch-size", 1)
    here = mmcli(*command, "--overlay", "here", "--device", "cpu")
    there = mmcli(*command, "--overlay", "there", "--devices", "cpu,cpu")
    assert (there.code, there.err.replace("there/", "here/")) == (here.code, here.err) and here.code == 1
    assert [r | {"timings": None} for r in there.records] == [r | {"timings": None} for r in here.records]
    drawn = {path.relative_to("here"): path.read_bytes() for path in Path("here").rglob("*.jpg")}
    assert drawn == {path.relative_to("there"): path.read_bytes() for path in Path("there").rglob("*.jpg")} != {}


@pytest.mark.usefixtures("have_torch")
def test_boxes_found_before_go_along():
    found = mmcli("detect", "cat ; person", "photos", "--json").out.encode()
    command = ("segment", "-", "--from-boxes", "--json", "--nms", 0.9)
    here, there = (mmcli(*command, *where, stdin=found) for where in (("--device", "cpu"), ("--devices", "cpu")))
    assert (there.code, there.err) == (here.code, here.err)
    assert [r | {"timings": None} for r in there.records] == [r | {"timings": None} for r in here.records]
    assert sum("mask" in one for record in there.records for one in record.get("objects", ())) > 1


@pytest.mark.usefixtures("have_torch")
def test_a_folder_begun_on_one_device_is_gone_on_with_on_several():
    command = ("detect", "cat", "photos", "-o", "out/")
    assert "3 pictures done" in mmcli(*command, "--devices", "cpu,cpu").err
    assert "0 pictures done, 3 done before, 1 failed before" in mmcli(*command, "--device", "cpu").err


@pytest.mark.usefixtures("have_torch")
def test_recordings_too():
    speech = next(EXAMPLES.glob("*.flac"), None) or next(EXAMPLES.glob("*.wav"))
    command = ("transcribe", speech, speech, "--duration", 4)
    here, there = mmcli(*command, "--device", "cpu"), mmcli(*command, "--devices", "cpu")
    assert there.out == here.out != "" and there.code == here.code == 0


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="processes are awaited by their descriptors")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_no_worker_outlives_a_run(number):
    os.mkfifo("photos/held.jpg")
    command = ("detect", "cat", "photos", "photos/held.jpg", "-o", "out/", "--devices", "cpu,cpu", "--batch-size", 1)
    # The pipe opens when its turn to be read comes, and holds a worker back.
    with running(sys.executable, "-m", "mmcli", *command) as child, open("photos/held.jpg", "wb"):
        workers = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
        ends = [os.pidfd_open(int(pid)) for pid in workers]
        child.send_signal(number)
        finish(child)
        assert child.returncode == (-9 if number == signal.SIGKILL else 130) and len(ends) >= 2
        for end in ends:
            assert select.select([end], [], [], PATIENCE)[0]
            os.close(end)
