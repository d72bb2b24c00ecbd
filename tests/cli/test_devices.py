"""--devices: several processes write what one would write, in the order of the inputs."""

import shutil
from pathlib import Path

import pytest
from command import mmcli

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def photos(tmp_path, monkeypatch):
    """Three photographs, and a file that is none."""
    monkeypatch.chdir(tmp_path)
    Path("photos/sub").mkdir(parents=True)
    for source, name in (("cat.jpg", "a.jpg"), ("astronaut.jpg", "sub/b.jpg"), ("tower.jpg", "c.jpg")):
        shutil.copy(EXAMPLES / source, Path("photos", name))
    Path("photos/b.jpg").write_bytes(b"no picture")


def test_results_are_those_of_one_process():
    command = ("detect", "cat ; person", "photos", "--json", "--batch-size", 1)
    here = mmcli(*command, "--overlay", "here", "--device", "cpu")
    there = mmcli(*command, "--overlay", "there", "--devices", "cpu,cpu")
    assert (there.code, there.err.replace("there/", "here/")) == (here.code, here.err) and here.code == 1
    assert [r | {"timings": None} for r in there.records] == [r | {"timings": None} for r in here.records]
    drawn = {path.relative_to("here"): path.read_bytes() for path in Path("here").rglob("*.jpg")}
    assert drawn == {path.relative_to("there"): path.read_bytes() for path in Path("there").rglob("*.jpg")} != {}


def test_a_folder_begun_on_one_device_is_gone_on_with_on_several():
    command = ("detect", "cat", "photos", "-o", "out/")
    assert "3 pictures done" in mmcli(*command, "--devices", "cpu,cpu").err
    assert "0 pictures done, 3 done before, 1 failed before" in mmcli(*command, "--device", "cpu").err


def test_recordings_too():
    speech = next(EXAMPLES.glob("*.flac"), None) or next(EXAMPLES.glob("*.wav"))
    command = ("transcribe", speech, speech, "--duration", 4)
    here, there = mmcli(*command, "--device", "cpu"), mmcli(*command, "--devices", "cpu")
    assert there.out == here.out != "" and there.code == here.code == 0
