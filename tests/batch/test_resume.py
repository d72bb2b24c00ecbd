"""What is passed over when a run goes on, and what is done again."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from mmcli.batch.manifest import Manifest
from mmcli.batch.resume import Resume, digest_of, stamp_of
from mmcli.media.sources import expand
from mmcli.output.ledger import Written
from mmcli.output.schema import Record

DONE = Record(task="caption", source="a.jpg", model="nano", text="a cat")


@pytest.fixture
def manifest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("in/sub").mkdir(parents=True)
    for name in ("in/a.jpg", "in/b.jpg", "in/sub/c.jpg"):
        Path(name).write_bytes(name.encode())
    with Manifest(tmp_path / "out") as manifest:
        yield manifest


def sources(*names):
    return list(expand(names or ["in"], extensions=frozenset({".jpg"})))


def left(manifest, found=None, *, recipe="recipe", finish=True, **options) -> list[str]:
    """The names of what a run does; with `finish` it writes a result for each."""
    found = sources() if found is None else found
    resume = Resume(manifest, lambda: recipe, **options)
    resume.name(found)
    names = []
    for source in resume.pending(found):
        names.append(source.name)
        if finish:
            path = Path("out", source.relative.with_suffix(".txt"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source.name)
            resume.note(source, DONE, [Written("--output", str(path.absolute()), digest_of(path))])
    assert resume.before + len(names) + len(resume.failed_before) == len(found)
    return names


def test_a_second_run_does_nothing_and_a_broken_one_is_gone_on_with(manifest):
    assert left(manifest, sources()[:2]) == ["in/a.jpg", "in/b.jpg"]
    assert left(manifest) == ["in/sub/c.jpg"]
    assert left(manifest) == []


def test_a_run_that_notes_nothing_is_done_again(manifest):
    assert left(manifest, finish=False) == left(manifest) != []


def test_what_has_changed_is_done_again(manifest):
    left(manifest)
    Path("in/b.jpg").write_bytes(b"in/B.jpg")  # as long as before
    assert left(manifest) == ["in/b.jpg"]
    Path("out/in/a.txt").write_text("changed")
    Path("out/in/sub/c.txt").unlink()
    assert left(manifest) == ["in/a.jpg", "in/sub/c.jpg"]


def test_a_touched_file_is_the_same(manifest):
    left(manifest)
    os.utime("in/a.jpg", (1, 1))
    assert left(manifest) == []


def test_a_changed_file_of_the_same_size_and_time_is_not_seen_and_of_another_time_it_is(manifest):
    left(manifest)
    status = os.stat("in/a.jpg")
    Path("in/a.jpg").write_bytes(b"IN/a.jpg")
    os.utime("in/a.jpg", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert left(manifest) == ["in/a.jpg"]


def test_another_recipe_and_force_do_all_again(manifest):
    left(manifest)
    assert len(left(manifest, recipe="other")) == 3
    assert left(manifest, recipe="other") == []
    assert len(left(manifest, recipe="other", force=True)) == 3


def test_without_a_recipe_nothing_is_known(manifest):
    assert len(left(manifest, recipe=None)) == 3
    assert len(left(manifest, recipe=None)) == 3


def test_failures_are_tried_again_when_asked_for_or_changed(manifest):
    resume = Resume(manifest, lambda: "recipe")
    resume.name(sources())
    for source in resume.pending(sources()):
        failed = replace(DONE, text="", error="it is no picture")
        resume.note(source, failed, [])
    assert left(manifest, finish=False) == []
    assert len(left(manifest, retry=True, finish=False)) == 3
    Path("in/a.jpg").write_bytes(b"new")
    assert left(manifest) == ["in/a.jpg"]


def test_what_changed_while_it_was_read_is_read_again(manifest):
    resume = Resume(manifest, lambda: "recipe")
    resume.name(sources())
    for source in resume.pending(sources()):
        Path(source.path).write_bytes(b"while it was read")
        resume.note(source, DONE, [])
    assert len(left(manifest)) == 3


def test_a_missing_file_and_a_pipe_are_never_done(manifest):
    os.mkfifo("pipe.jpg")
    found = sources("missing.jpg", "pipe.jpg")
    assert [stamp_of(source).content for source in found] == [None, None]
    assert left(manifest, found) == left(manifest, found) == ["missing.jpg", "pipe.jpg"]


def test_two_inputs_that_mirror_to_one_place_are_told_apart(manifest):
    absolute = str(Path("/", Path("in/a.jpg").absolute().relative_to("/")))
    found = sources("in/a.jpg", absolute)
    assert found[0].relative == found[1].relative
    left(manifest, found[:1])
    resume = Resume(manifest, lambda: "recipe")
    resume.name(found)
    assert [source.name for source in resume.pending(found)] == [absolute]
