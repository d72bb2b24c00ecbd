"""Inputs in stores that fsspec knows: found, read once each, and told apart when they change."""

import sys

import fsspec
import pytest

from mmcli.errors import InputError
from mmcli.media import stores
from mmcli.media.identity import identity
from mmcli.media.sources import IMAGE_EXTENSIONS, expand

FILES = ("a.jpg", "sub/b.PNG", "sub/c.txt", ".hidden/d.jpg", "e[1].jpg", "sub/f", "texts/deep/x.txt")


@pytest.fixture
def store(request):
    """A store in memory, with files that hold their names."""
    memory = fsspec.filesystem("memory")
    for name in FILES:
        memory.pipe(f"/photos/{name}", name.encode())
    yield memory
    memory.rm("/photos", recursive=True)


def sources(*names):
    return list(expand(names, extensions=IMAGE_EXTENSIONS))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("memory://photos", ["a.jpg", "e[1].jpg", "sub/b.PNG"]),
        ("memory://photos/", ["a.jpg", "e[1].jpg", "sub/b.PNG"]),
        ("memory://photos/sub", ["sub/b.PNG"]),
        ("memory://photos/sub/f", ["sub/f"]),  # named outright
        ("memory://photos/e[1].jpg", ["e[1].jpg"]),
        ("memory://photos/*.jpg", ["a.jpg", "e[1].jpg"]),
        ("memory://photos/*/*.txt", ["sub/c.txt"]),
        ("memory://photos/sub/*", ["sub/b.PNG"]),
    ],
)
def test_files_are_found(store, name, expected):
    found = sources(name)
    assert [source.name.removeprefix("memory:///photos/") for source in found] == expected
    assert [source.relative.as_posix() for source in found] == [f"photos/{name}" for name in expected]
    assert [source.read().decode() for source in found] == expected


def test_an_image_is_fetched_once_and_not_kept(store, monkeypatch):
    fetched = []
    read = stores.read
    monkeypatch.setattr(stores, "read", lambda url, limit: fetched.append(url) or read(url, limit))
    [source] = sources("memory://photos/a.jpg")
    assert source.head(2) == b"a." and source.head() == b"a.jpg"
    with source.open() as file:
        assert file.read() == b"a.jpg"
    assert fetched == [source.url] and source._kept == []
    assert source.read() == b"a.jpg" and len(fetched) == 2


def test_what_changed_is_another_input(store):
    [before] = sources("memory://photos/a.jpg")
    [same] = sources("memory://photos/a.jpg")
    store.pipe("/photos/a.jpg", b"another")
    [after] = sources("memory://photos/a.jpg")
    assert identity(before) == identity(same) != identity(after)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("memory://nowhere/", "memory://nowhere/ does not exist or is empty"),
        ("memory://photos/*.gif", "matches no file"),
        ("memory://photos/texts/", "has no file that can be used"),
        ("s3://bucket/a.jpg", "s3://bucket/a.jpg needs the extra package s3fs. Install it: pip install s3fs"),
        ("az://container/", "needs the extra package adlfs"),
        ("s4://bucket/a.jpg", "is an address of a kind that is not fetched"),
    ],
)
def test_what_is_wrong_is_a_failed_input(store, monkeypatch, name, said):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.setitem(sys.modules, "adlfs", None)
    [source] = sources(name)
    with pytest.raises(InputError) as caught:
        source.read()
    assert said in str(caught.value)


def test_stores_elsewhere_are_not_asked_offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    [source] = sources("s3://bucket/a.jpg")
    with pytest.raises(InputError, match="--offline"):
        source.read()


def test_a_file_that_is_too_long_is_refused(store):
    with pytest.raises(InputError, match="is longer than 3 bytes"):
        sources("memory://photos/a.jpg")[0].read(3)
    with pytest.raises(InputError, match="is longer than 3 bytes"):
        stores.read("memory://photos/a.jpg", 3)


def test_what_a_store_says_is_told(store, monkeypatch):
    def refuse(self, *arguments, **more):
        raise OSError("Unable to\nlocate credentials")

    [source] = sources("memory://photos/a.jpg")
    monkeypatch.setattr(type(store), "cat_file", refuse)
    with pytest.raises(InputError, match=r"a.jpg cannot be read \(Unable to locate credentials\)"):
        source.read()
