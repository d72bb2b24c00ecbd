"""Runs from and into a store that fsspec knows: the same results, gone on with from any machine."""

import json
import shutil
from pathlib import Path

import fsspec
import pytest
from command import OF_NOBODY, mmcli

from mmcli.batch.manifest import NAME, read_records

EXAMPLES = Path(__file__).parents[2] / "examples"
COMMAND = ("detect", "cat ; person", "memory://bucket/photos", "--format", "jsonl,coco")


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A store in memory with two photographs and a file that is none; another one is on this machine."""
    monkeypatch.chdir(tmp_path)
    memory = fsspec.filesystem("memory")
    for source, name in (("cat.jpg", "a.jpg"), ("astronaut.jpg", "sub/b.jpg")):
        memory.pipe(f"/bucket/photos/{name}", (EXAMPLES / source).read_bytes())
    memory.pipe("/bucket/photos/d.jpg", b"no picture")
    yield memory
    memory.rm("/bucket", recursive=True)


def on(machine: str, *arguments):
    """Run it on a machine whose user has a state of his own."""
    return mmcli(*arguments, variables=OF_NOBODY | {"XDG_STATE_HOME": str(Path(machine).absolute())})


def names(store, place="/bucket/out"):
    return sorted(name.removeprefix(f"{place}/") for name in store.find(place))


def without_times(text):
    return [json.loads(line) | {"timings": None} for line in text.splitlines()]


def test_results_are_those_of_a_folder_here(store, tmp_path):
    done = on("one", *COMMAND, "-o", "memory://bucket/out")
    assert done.code == 1 and "2 pictures done" in done.err and "1 failed" in done.err, done.err
    assert names(store) == [NAME, "annotations.json", "bucket/photos/a.jsonl", "bucket/photos/sub/b.jsonl"]
    assert mmcli(*COMMAND, "-o", "here").code == 1
    for name in names(store)[1:]:
        there, here = store.cat_file(f"/bucket/out/{name}").decode(), Path("here", name).read_text()
        assert there == here if name == "annotations.json" else without_times(there) == without_times(here)
    store.get_file(f"/bucket/out/{NAME}", str(tmp_path / NAME))
    records = [[r | {"timings": None} for r in read_records(folder)] for folder in (tmp_path, Path("here"))]
    assert records[0] == records[1]
    assert not list(Path("one").rglob("*.*"))


def test_another_machine_goes_on(store):
    on("one", *COMMAND, "-o", "memory://bucket/out")
    again = on("two", *COMMAND, "-o", "memory://bucket/out/")
    assert "0 pictures done, 2 done before, 1 failed before" in again.err
    store.rm("/bucket/out/bucket/photos/a.jsonl")
    store.pipe("/bucket/photos/d.jpg", (EXAMPLES / "tower.jpg").read_bytes())
    mended = on("three", *COMMAND, "-o", "memory://bucket/out/")
    assert mended.code == 0 and "2 pictures done" in mended.err and "1 done before" in mended.err
    assert "bucket/photos/a.jsonl" in names(store) and "bucket/photos/d.jsonl" in names(store)
    assert len(json.loads(store.cat_file("/bucket/out/annotations.json"))["images"]) == 3


def test_files_of_others_are_left_alone(store):
    store.pipe("/bucket/out/bucket/photos/a.jsonl", b"mine")
    done = on("one", *COMMAND, "-o", "memory://bucket/out/")
    assert done.code == 1 and "a.jsonl exists already and was not written by mmcli" in done.err
    assert store.cat_file("/bucket/out/bucket/photos/a.jsonl") == b"mine"
    assert on("one", *COMMAND, "-o", "memory://bucket/new/", "--force").code == 1


def test_a_store_that_takes_nothing_ends_the_run(store, monkeypatch):
    def refuse(self, *arguments, **more):
        raise OSError("403 Forbidden")

    monkeypatch.setattr(type(store), "put_file", refuse)
    done = on("one", *COMMAND, "-o", "memory://bucket/out/")
    assert done.code == 4 and "cannot be written (403 Forbidden)" in done.err and len(done.err.splitlines()) == 1


def test_a_store_that_stops_taking_ends_the_run_and_keeps_what_it_has(store, monkeypatch):
    put = type(store).put_file

    def refuse(self, local, place, **more):
        if "sub" in place:
            raise OSError("disk full")
        put(self, local, place, **more)

    monkeypatch.setattr(type(store), "put_file", refuse)
    done = on("one", *COMMAND, "-o", "memory://bucket/out/", "--batch-size", 1)
    assert done.code == 4 and "b.jsonl cannot be written (disk full)" in done.err
    monkeypatch.undo()
    assert names(store) == [NAME, "bucket/photos/a.jsonl"]
    again = on("two", *COMMAND, "-o", "memory://bucket/out/").err
    assert "1 picture done" in again and "1 done before" in again


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["-o", "memory://bucket/out.jsonl"], "--output memory://bucket/out.jsonl is one file in a store"),
        (["-o", "memory://b/", "--format", "yolo"], "--format yolo tells where the pictures are"),
        (
            ["-o", "out/", "--overlay", "s3://b/drawn"],
            "s3://b/drawn is in a store, where only the results of --output go",
        ),
    ],
)
def test_what_a_store_cannot_hold(store, options, said):
    done = on("one", "detect", "cat", "memory://bucket/photos", *options)
    assert done.code == 2 and said in done.err, done.err


def test_transcripts_too(store):
    shutil.copy(EXAMPLES / "jfk.flac", "speech.flac")
    command = ("transcribe", "speech.flac", "--duration", 3, "--format", "srt")
    assert on("one", *command, "-o", "memory://bucket/out/").code == 0
    assert mmcli(*command, "-o", "here/").code == 0
    assert store.cat_file("/bucket/out/speech.srt").decode() == Path("here/speech.srt").read_text() != ""
