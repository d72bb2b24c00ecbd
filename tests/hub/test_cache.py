"""huggingface_hub's cache as it is found on disks: copied without its references, edited, half downloaded."""

import os
import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest
from command import mmcli

from mmcli.errors import ModelError
from mmcli.hub import cache
from mmcli.hub.known_models import KNOWN
from mmcli.hub.layout import BUNDLED
from mmcli.hub.resolve import cached_folder, resolve

NAME = "someone/model"
OLD, NEW = "a" * 40, "b" * 40
CAT = Path(__file__).parents[2] / "examples" / "cat.jpg"


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """The folder of NAME in a cache of the test's own, still without anything in it."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    place = cache.storage(NAME)
    place.mkdir(parents=True)
    return place


def snapshot(place: Path, commit: str, *, age: int = 0, without: str = "") -> Path:
    """The bundled model as one revision of a hub model, linked to contents as the library links them."""
    folder = place / "snapshots" / commit
    folder.mkdir(parents=True)
    (place / "blobs").mkdir(exist_ok=True)
    for file in BUNDLED["nano"].iterdir():
        if file.suffix in (".json", ".safetensors") and file.name != without:
            content = place / "blobs" / f"of-{file.name}"
            if not content.exists():
                shutil.copy(file, content)
            (folder / file.name).symlink_to(os.path.relpath(content, folder))
    os.utime(folder, (1e9 - age, 1e9 - age))
    return folder


def refer(place: Path, name: str, text: str | bytes) -> None:
    path = place / "refs" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize(
    "text", [NEW, NEW + "\n", NEW + "\r\n", f"  {NEW}\t", b"\xef\xbb\xbf" + NEW.encode()],
    ids=["as written", "line break", "from Windows", "spaces", "byte order mark"],
)  # fmt: skip
def test_what_stands_around_a_commit_does_not_belong_to_it(place, text):
    snapshot(place, OLD), snapshot(place, NEW, age=9)
    refer(place, "main", text)
    found = resolve(NAME, download=False)
    assert (found.revision, found.note) == (NEW, "")


def test_a_model_in_a_copied_cache_answers(place):
    """A cache without references, as rsync with the wrong filter or a container image leaves it."""
    snapshot(place, NEW)
    done = mmcli("caption", CAT, "--model", NAME, "--offline", "--json")
    assert done.code == 0, done.err
    assert done.records[0]["revision"] == NEW
    assert done.records[0]["text"] == mmcli("caption", CAT, "--json").records[0]["text"]
    assert "revision" not in done.err


def test_a_short_name_stands_for_its_commit_and_else_for_what_is_here(place):
    known = next(model for model in KNOWN if model.revision)
    own = cache.storage(known.repository)
    snapshot(own, NEW)
    refer(own, "main", NEW)
    assert resolve(known.name, download=False).revision == NEW == cached_folder(known.name).name
    snapshot(own, known.revision, age=99)
    assert resolve(known.name, download=False).revision == known.revision == cached_folder(known.name).name
    assert resolve(known.repository, download=False).revision == NEW
    assert resolve(known.name, NEW, download=False).revision == NEW


def test_among_revisions_without_a_main_the_newest_is_taken_and_said(place):
    snapshot(place, OLD, age=99), snapshot(place, NEW)
    snapshot(place, "c" * 40, without="model.safetensors")
    done = mmcli("caption", CAT, "--model", NAME, "--offline", "--json")
    assert done.records[0]["revision"] == NEW
    assert (
        "the cache holds 2 revisions of someone/model and does not say which is main: bbbbbbbbbbbb is used" in done.err
    )
    assert resolve(NAME, OLD, download=False).revision == OLD
    assert resolve(NAME, OLD[:9], download=False).revision == OLD


@pytest.mark.parametrize("main", ["missing", "incomplete"])
def test_an_update_that_broke_off_leaves_the_old_revision_in_use(place, main):
    snapshot(place, OLD)
    refer(place, "main", NEW)
    if main == "incomplete":
        shutil.rmtree(snapshot(place, NEW, age=-9) / "..nothing", ignore_errors=True)
        (place / "snapshots" / NEW / "model.safetensors").unlink()
    assert cache.find(place) is None, "with the network at hand, main is completed"
    found = resolve(NAME, download=False)
    assert found.revision == OLD and "newest revision of someone/model is not complete" in found.note
    with pytest.raises(ModelError, match="not in the cache|only in part"):
        resolve(NAME, "v2", download=False)


def test_contents_that_are_gone_are_said(place):
    folder = snapshot(place, NEW)
    refer(place, "main", NEW)
    (place / "blobs" / "of-model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"only in part .*content is gone \(model.safetensors\).*models pull someone"):
        resolve(NAME, download=False)
    with pytest.raises(ModelError, match=r"content is gone \(model.safetensors\).*cp -rL"):
        from mmcli.hub.weight_files import weight_files

        weight_files(folder)


def test_a_download_that_broke_off_is_told_from_none(place):
    with pytest.raises(ModelError, match=r"no folder here and not in the cache \(bundled: .*\)\. Download it with"):
        resolve(NAME, download=False)
    (place / "blobs").mkdir()
    (place / "blobs" / "0123.incomplete").write_bytes(b"half")
    with pytest.raises(ModelError, match=r"only in part \(its download broke off\)"):
        resolve(NAME, download=False)
    snapshot(place, NEW, without="model.safetensors")
    with pytest.raises(ModelError, match="only in part .*holds no weights"):
        resolve(NAME, download=False)


def test_the_caches_own_folder_for_a_model_is_taken_as_that_model(place):
    snapshot(place, OLD, age=5), snapshot(place, NEW)
    refer(place, "main", OLD + "\n")
    found = resolve(str(place))
    assert (found.revision, found.folder.name) == (OLD, OLD)
    assert resolve(str(place), NEW).revision == NEW
    (place / "snapshots" / OLD / "config.json").unlink()
    (place / "snapshots" / NEW / "config.json").unlink()
    with pytest.raises(ModelError, match="where the cache keeps someone/model.*models pull someone/model"):
        resolve(str(place))


@pytest.mark.parametrize(
    "name, meant",
    [("Someone/Model", NAME), ("someone/modle", NAME), ("models--someone--model", NAME), ("Nano", "nano"),
     (" nano", "nano"), ("whisper-tiny-en", "whisper-tiny.en")],
)  # fmt: skip
def test_a_name_that_is_nearly_right(place, name, meant):
    snapshot(place, NEW)
    with pytest.raises(ModelError, match=f"Perhaps you mean {meant}"):
        resolve(name, download=False)


def test_a_name_that_is_known_is_taken_as_it_is_meant(place):
    for name in ("paligemma2-3b-mix-448", "google/paligemma2-3b-mix-448"):
        with pytest.raises(ModelError) as error:
            resolve(name, download=False)
        assert "Perhaps" not in str(error.value) and "mmcli models pull google/paligemma2-3b-mix" in str(error.value)


def test_a_damaged_cache_is_listed_and_can_be_removed(place):
    snapshot(place, OLD), snapshot(place, NEW, age=4)
    refer(place, "main", NEW + "\n")
    refer(place, "v1", "d" * 40)  # of a revision that is not here: the library gives the whole model up for it
    (place / "blobs" / "0123.incomplete").write_bytes(b"half")
    assert [(m.revision, m.references) for m in cache.cached_models()] == [(OLD, ()), (NEW, ("main",))]
    outside = place.parent / "precious.json"
    outside.write_text("{}")
    (place / "snapshots" / NEW / "linked.json").symlink_to(outside)
    assert cache.remove(NAME, NEW) < 100, "all its contents are shared; the reference goes"
    assert [m.revision for m in cache.cached_models()] == [OLD] and "main" not in cache.references(place)
    assert outside.exists() and resolve(NAME, download=False).revision == OLD
    size = cache.disk_size(NAME)
    assert cache.remove(NAME) == size and not place.exists()


def test_what_is_left_of_a_broken_download_can_be_removed(place):
    (place / "blobs").mkdir()
    (place / "blobs" / "0123.incomplete").write_bytes(b"half")
    done = mmcli("models", "remove", NAME, "--yes")
    assert done.code == 0 and not place.exists()


def test_what_a_model_is_made_of_is_told_without_its_weights(place):
    snapshot(place, NEW, without="model.safetensors")
    refer(place, "main", NEW)
    done = mmcli("inspect", NAME, "--offline", "--json")
    assert done.code == 0 and done.records[0]["revision"] == NEW, done.err
    assert mmcli("caption", CAT, "--model", NAME, "--offline").code == 3
