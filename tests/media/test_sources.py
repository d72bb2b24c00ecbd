"""Naming inputs: files, folders and globs as they really are, and the names that come of them."""

import os
import subprocess
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import pytest
from naming import make, names, only

from mmcli.errors import InputError
from mmcli.media.naming import printable
from mmcli.media.sources import AUDIO_EXTENSIONS, IMAGE_EXTENSIONS, Source, expand

pytestmark = pytest.mark.usefixtures("here")


@contextmanager
def without_privileges():
    """Permissions mean nothing to root, so step down for as long as it takes."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


# -- files and folders -------------------------------------------------------------------------------------------


def test_order_is_the_users():
    make("b.jpg", "a.jpg", "d/c.jpg")
    assert names("b.jpg", "d", "a.jpg", "b.jpg") == ["b.jpg", "d/c.jpg", "a.jpg", "b.jpg"]


def test_a_file_named_outright_is_taken_whatever_its_ending():
    make("scan.dat", ".hidden.png")
    assert names("scan.dat", ".hidden.png") == ["scan.dat", ".hidden.png"]
    assert only("scan.dat").read() == b"scan.dat"


def test_a_folder_gives_its_images_sorted_and_nothing_hidden():
    make("d/b.PNG", "d/a.jpg", "d/sub/c.webp", "d/notes.txt", "d/.x.jpg", "d/.cache/y.jpg", "d/e.tiff")
    assert names("d") == ["d/a.jpg", "d/b.PNG", "d/e.tiff", "d/sub/c.webp"]
    assert names("d/") == names("d")


def test_a_hidden_folder_named_outright_is_taken():
    make(".album/a.jpg")
    assert names(".album") == [".album/a.jpg"]


def test_other_extensions_for_other_tasks():
    make("d/a.jpg", "d/a.mp3")
    assert names("d", extensions=AUDIO_EXTENSIONS) == ["d/a.mp3"]


def test_loops_of_links_end_and_every_folder_is_entered_once():
    make("d/a/1.jpg", "d/b/2.jpg")
    os.symlink("..", "d/a/up")
    os.symlink("../b", "d/a/over")
    os.symlink("../a", "d/b/over")
    os.symlink("self", "d/self")
    assert [Path(name).name for name in names("d")] == ["1.jpg", "2.jpg"]


@pytest.fixture
def pit(tmp_path, monkeypatch):
    """A folder, and a function that digs so many levels below it; pytest's own cleaning would not reach them."""
    monkeypatch.chdir(tmp_path)

    def dig(levels: int) -> None:
        os.mkdir("pit")
        os.chdir("pit")
        for _ in range(levels):
            os.mkdir("d")
            os.chdir("d")
        Path("deep.jpg").touch()
        os.chdir(tmp_path)

    yield dig
    subprocess.run(["rm", "-rf", tmp_path / "pit"], check=True)


@pytest.mark.parametrize("pattern", ["pit", "pit/**/*.jpg"])
def test_a_folder_deeper_than_python_calls_itself(pit, pattern):
    pit(1100)
    [found] = expand([pattern], extensions=IMAGE_EXTENSIONS)
    assert found.name == "pit/" + "d/" * 1100 + "deep.jpg"
    found.open().close()


def test_a_folder_deeper_than_paths_are_long_is_said_and_stops_nothing(pit):
    pit(2100)
    make("pit/z.jpg")
    lost, found = expand(["pit"], extensions=IMAGE_EXTENSIONS)
    with pytest.raises(InputError, match="name too long"):
        lost.read()
    assert found.name == "pit/z.jpg"


def test_a_folder_with_an_images_ending_is_a_folder():
    make("d/album.jpg/a.png")
    assert names("d") == ["d/album.jpg/a.png"]


def test_a_pipe_lying_in_a_folder_is_passed_over():
    """It would be waited for, for ever."""
    make("d/a.jpg")
    os.mkfifo("d/pipe.jpg")
    assert names("d") == ["d/a.jpg"]


def test_a_link_to_nothing_in_a_folder_is_reported():
    make("d/a.jpg")
    os.symlink("gone.jpg", "d/b.jpg")
    assert names("d") == ["d/a.jpg", "d/b.jpg"]
    with pytest.raises(InputError, match=r"d/b\.jpg does not exist"):
        list(expand(["d"], extensions=IMAGE_EXTENSIONS))[1].read()


@pytest.mark.parametrize(
    "name, message",
    [
        ("gone.jpg", r"^gone\.jpg does not exist\. Check the name"),
        ("file/inside.jpg", "does not exist"),
        ("loop.jpg", "leads back to itself"),
        ("", "empty name"),
        ("x" * 300, "cannot be read: File name too long"),
        ("nul\0.jpg", r"nul\\x00\.jpg cannot be read"),
        ("empty", r"^empty has no file that can be used\. Looked in it and below for .*\.jpg"),
        ("ftp://host/a.jpg", "kind that is not fetched"),
        ("sftp://host/a.jpg", "kind that is not fetched"),
        ("*.jpg", r"^\*\.jpg matches no file"),
    ],
)
def test_what_cannot_be_read_fails_when_read_and_stops_nothing(name, message):
    make("good.png", "file")
    os.mkdir("empty")
    os.symlink("loop.jpg", "loop.jpg") if name == "loop.jpg" else None
    bad, good = expand([name, "good.png"], extensions=IMAGE_EXTENSIONS)
    assert bad.name == name
    for _ in range(2):
        with pytest.raises(InputError, match=message):
            bad.read()
    assert good.read() == b"good.png"


def test_a_folder_read_as_a_file():
    with pytest.raises(InputError, match=r"is a folder, not one file\. Name a file in it"):
        Source(".", Path("."), None, PurePosixPath("x")).read()


def test_without_permission(tmp_path):
    make("d/secret.jpg", "d/shut/a.jpg")
    tmp_path.chmod(0o755)
    Path("d/secret.jpg").chmod(0)
    Path("d/shut").chmod(0)
    with without_privileges():
        secret, shut = expand(["d"], extensions=IMAGE_EXTENSIONS)
        with pytest.raises(InputError, match=r"d/secret\.jpg may not be read"):
            secret.read()
        with pytest.raises(InputError, match=r"d/shut may not be read"):
            shut.read()
    Path("d/shut").chmod(0o755)


@pytest.mark.parametrize(
    "name, shown",
    [
        ("two\nlines.jpg", "two\\nlines.jpg"),
        ("bell\x1b[31m.jpg", "bell\\x1b[31m.jpg"),
        (os.fsdecode(b"caf\xe9.jpg"), "caf\\xe9.jpg"),  # Latin-1 bytes on a UTF-8 system
        ("a[red].jpg", "a[red].jpg"),
        ("-v.jpg", "-v.jpg"),
        ("naïve 写真 📷.jpg", "naïve 写真 📷.jpg"),
        ("evil\u202egpj.exe.jpg", "evil\\u202egpj.exe.jpg"),  # turns the reading direction round
    ],
)
def test_names_of_any_bytes(name, shown):
    make(f"d/{name}")
    (source,) = expand(["d"], extensions=IMAGE_EXTENSIONS)
    assert source.name == f"d/{name}"
    assert source.read() == os.fsencode(f"d/{name}")
    assert printable(source.name) == f"d/{shown}"
    with pytest.raises(InputError) as caught:
        only(f"gone/{name}").read()
    assert str(caught.value).startswith(f"gone/{shown} ")


# -- globs -------------------------------------------------------------------------------------------------------

TREE = ("d/a.jpg", "d/b.png", "d/n.txt", "d/raw.dat", "d/s/c.jpg", "d/s/t/e.jpg", "d/.h/f.jpg", "d/.i.jpg", "x1.jpg")


@pytest.mark.parametrize(
    "pattern, expected",
    [
        ("d/*.jpg", ["d/a.jpg"]),
        ("d/?.[jp][pn]g", ["d/a.jpg", "d/b.png"]),
        ("d/*.dat", ["d/raw.dat"]),  # the ending is asked for
        ("d/*.*", ["d/a.jpg", "d/b.png"]),  # no ending is asked for: the known ones
        ("d/*", ["d/a.jpg", "d/b.png", "d/s/c.jpg", "d/s/t/e.jpg"]),  # folders are opened, as after the shell
        ("d/**/*.jpg", ["d/a.jpg", "d/s/c.jpg", "d/s/t/e.jpg"]),
        ("**/*.jpg", ["x1.jpg", "d/a.jpg", "d/s/c.jpg", "d/s/t/e.jpg"]),
        ("d/**", ["d/a.jpg", "d/b.png", "d/s/c.jpg", "d/s/t/e.jpg"]),
        ("**/t/*.jpg", ["d/s/t/e.jpg"]),
        ("**/**/e.jpg", ["d/s/t/e.jpg"]),
        ("d/.*.jpg", ["d/.i.jpg"]),  # hidden ones by asking
        ("d/.h/*", ["d/.h/f.jpg"]),
        ("*/s/../a.jp*", ["d/s/../a.jpg"]),
        ("x[0-9].jpg", ["x1.jpg"]),
    ],
)
def test_globs(pattern, expected):
    make(*TREE)
    assert names(pattern) == expected


def test_an_absolute_glob(tmp_path):
    make(*TREE)
    assert names(f"{tmp_path}/d/**/c.*") == [f"{tmp_path}/d/s/c.jpg"]


def test_a_file_that_is_called_like_a_glob_wins():
    make("a[red].png", "ar.png", "what?.png", "d/*.jpg", "d/b.jpg")
    assert names("a[red].png", "what?.png", "d/*.jpg") == ["a[red].png", "what?.png", "d/*.jpg"]


def test_a_glob_over_linked_folders_ends():
    make("d/a/1.jpg")
    for number in range(4):
        os.symlink("..", f"d/a/up{number}")
    assert names("**/1.jpg") == ["d/a/1.jpg"]
