"""Naming inputs: what the user may type, and what lies in real folders, pipes and lists."""

import io
import os
import socket
import sys
import threading
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mmcli.errors import InputError, UsageError
from mmcli.media.sources import AUDIO_EXTENSIONS, IMAGE_EXTENSIONS, Source, expand, printable, relative_place


def names(*arguments, **options) -> list[str]:
    options.setdefault("extensions", IMAGE_EXTENSIONS)
    return [source.name for source in expand(arguments, **options)]


def only(*arguments, **options) -> Source:
    options.setdefault("extensions", IMAGE_EXTENSIONS)
    (source,) = expand(arguments, **options)
    return source


def make(*paths: str) -> None:
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(path.encode("utf-8", "surrogateescape"))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


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


def test_a_folder_gives_its_pictures_sorted_and_nothing_hidden():
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


def test_a_folder_with_a_pictures_ending_is_a_folder():
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
        ("empty", r"^empty holds no file to work on\. Looked in it and below for .*\.jpg"),
        ("ftp://host/a.jpg", "kind that is not fetched"),
        ("s3://bucket/a.jpg", "kind that is not fetched"),
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


# -- stdin, pipes ------------------------------------------------------------------------------------------------


class Unseekable(io.RawIOBase):
    """A pipe gives what it has, in pieces, and cannot go back."""

    def __init__(self, *pieces: bytes):
        self.pieces = list(pieces)

    def readable(self):
        return True

    def read(self, size=-1):
        return self.pieces.pop(0) if self.pieces else b""

    def seek(self, *_):
        raise OSError("Illegal seek")


def test_stdin_is_read_whole_and_may_be_read_again():
    source = only("-", stdin=Unseekable(b"one ", b"two"))
    assert (source.name, source.path, source.url, source.relative) == ("-", None, None, PurePosixPath("stdin"))
    assert source.read() == b"one two" == source.read()


def test_a_file_called_dash_is_named_with_its_folder():
    make("-")
    assert only("./-").read() == b"-"


def test_stdin_can_be_asked_for_once():
    with pytest.raises(UsageError, match="only once"):
        expand(["-", "-"], extensions=IMAGE_EXTENSIONS)
    with pytest.raises(UsageError, match="only once"):
        expand(["-"], files_from="-", extensions=IMAGE_EXTENSIONS, stdin=io.BytesIO())


def test_no_stdin_at_all(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)  # a process started without one
    with pytest.raises(InputError, match="no standard input"):
        only("-").read()


def _write_later(path, data):
    def write():
        with open(path, "wb") as pipe:
            pipe.write(data)

    thread = threading.Thread(target=write)
    thread.start()
    return thread


def test_a_fifo_is_read_whole_and_may_be_read_again():
    os.mkfifo("pipe.jpg")
    data = os.urandom(300_000)  # more than a pipe holds
    thread = _write_later("pipe.jpg", data)
    source = only("pipe.jpg")
    assert source.read() == data
    thread.join()
    assert source.read() == data, "a second opening would wait for ever"


@pytest.mark.skipif(not os.path.isdir("/dev/fd"), reason="no /dev/fd here")
def test_the_shells_substituted_process():
    """<(command) reaches the program as the name /dev/fd/N."""
    reading, writing = os.pipe()
    os.write(writing, b"from a command")
    os.close(writing)
    try:
        source = only(f"/dev/fd/{reading}")
        assert source.read() == b"from a command" == source.read()
    finally:
        os.close(reading)


def test_a_socket_is_an_error():
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("s.jpg")
        with pytest.raises(InputError, match=r"s\.jpg cannot be read"):
            only("s.jpg").read()


def test_a_limit_on_size():
    make("12345678")
    assert only("12345678").read(limit=8) == b"12345678"
    with pytest.raises(InputError, match="12345678 is longer than 7 bytes"):
        only("12345678").read(limit=7)
    stream = only("-", stdin=Unseekable(b"1234", b"5678"))
    with pytest.raises(InputError, match="longer than 7 bytes"):
        stream.read(limit=7)
    with pytest.raises(InputError, match="longer than 2 MiB"):
        only("/dev/zero").read(limit=2 << 20)


# -- lists -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content, expected",
    [
        (b"a.jpg\nb.jpg\n", ["a.jpg", "b.jpg"]),
        (b"a.jpg\nb.jpg", ["a.jpg", "b.jpg"]),  # no newline at the end
        (b"a.jpg\r\nb.jpg\r\n", ["a.jpg", "b.jpg"]),  # from Windows
        (b"\xef\xbb\xbfa.jpg\n", ["a.jpg"]),  # with a byte-order mark
        ("a.jpg\r\nb.jpg\r\n".encode("utf-16"), ["a.jpg", "b.jpg"]),  # from PowerShell
        (b"\n\na.jpg\n\n", ["a.jpg"]),
        (b"a.jpg\0two\nlines.jpg\0", ["a.jpg", "two\nlines.jpg"]),  # find -print0
        (b" a.jpg \n", [" a.jpg "]),  # spaces belong to names
        (b"# a.jpg\n", ["# a.jpg"]),
        (b"caf\xe9.jpg\n", [os.fsdecode(b"caf\xe9.jpg")]),
        (b"d\ngone.jpg\n-\n", ["d/c.jpg", "gone.jpg", "-"]),  # "-" inside a list is a file's name
        (b"", []),
    ],
)
def test_a_list_of_files(content, expected):
    make("d/c.jpg")
    Path("list").write_bytes(content)
    assert names(files_from="list") == expected
    assert names(files_from="-", stdin=io.BytesIO(content)) == expected


def test_a_list_follows_the_arguments():
    Path("list").write_text("b.jpg\n")
    assert names("a.jpg", files_from="list") == ["a.jpg", "b.jpg"]


def test_a_name_that_really_ends_in_a_carriage_return():
    make("odd.jpg\r")
    Path("list").write_bytes(b"odd.jpg\r\n")
    assert names(files_from="list") == ["odd.jpg\r"]


def test_a_list_that_is_not_there_is_a_usage_error():
    with pytest.raises(UsageError, match=r"list of files cannot be read: gone does not exist"):
        expand([], files_from="gone", extensions=IMAGE_EXTENSIONS)


def test_nothing_is_opened_before_it_is_asked_for():
    make("a.jpg")
    sources = expand(["later", "a.jpg"], extensions=IMAGE_EXTENSIONS)
    make("later/b.jpg")
    assert [source.name for source in sources] == ["later/b.jpg", "a.jpg"]


# -- where outputs go --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, place",
    [
        ("a.jpg", "a.jpg"),
        ("./a.jpg", "a.jpg"),
        ("d/s/a.jpg", "d/s/a.jpg"),
        ("d/../a.jpg", "a.jpg"),
        ("d//./a.jpg", "d/a.jpg"),
        ("/data/photos/a.jpg", "data/photos/a.jpg"),  # as tar does
        ("a\\b.jpg", "a\\b.jpg"),
        (".", "unnamed"),
        ("/", "unnamed"),
    ],
)
def test_outputs_mirror_the_path_as_given(name, place):
    assert relative_place(name) == PurePosixPath(place)


def test_paths_that_leave_the_folder_and_come_back(tmp_path):
    assert relative_place(str(tmp_path / "d" / "a.jpg")) == PurePosixPath("d/a.jpg")
    assert relative_place(f"../{tmp_path.name}/a.jpg") == PurePosixPath("a.jpg")
    outside = PurePosixPath(*tmp_path.parent.parts[1:])
    assert relative_place("../other/a.jpg") == outside / "other" / "a.jpg"


def test_files_of_one_name_from_several_folders_do_not_meet():
    make("d/a.jpg", "e/a.jpg", "a.jpg")
    places = [s.relative for s in expand(["d", "e", "a.jpg", "../a.jpg", "../d/a.jpg"], extensions=IMAGE_EXTENSIONS)]
    assert len(set(places)) == 5


_pieces = st.sampled_from(["..", ".", "", "a", "b.jpg", "~", "C:", "\\", " ", "\n", "é", "\udcff", "*", "//"])
_paths = st.one_of(st.lists(_pieces, min_size=1, max_size=8).map("/".join), st.text(max_size=20))


def _stays_inside(place: PurePosixPath) -> bool:
    return not place.is_absolute() and bool(place.parts) and ".." not in place.parts


@given(_paths)
@example("../../../../../../../../../../etc/passwd")
@example("//a/b")
@example("..")
def test_an_output_never_leaves_its_folder(name):
    assert _stays_inside(relative_place(name))


@given(st.sampled_from(["http://", "HTTPS://"]), _paths)
@example("https://", "host/%2e%2e/%2E%2E/etc/passwd")
@example("https://", "host/..%2f..%2fetc")
@example("https://", "../..")
@example("http://", "?" + "q" * 500)
@example("http://", "h/" + "n" * 500 + ".jpg")
def test_nor_does_that_of_an_address(scheme, rest):
    source = only(scheme + rest)
    assert _stays_inside(source.relative)
    assert all(len(part.encode()) <= 255 and "\0" not in part for part in source.relative.parts)


def test_the_place_of_an_address():
    assert only("https://user@Example.org:8000/a/b%20c.jpg#top").relative == PurePosixPath("example.org_8000/a/b c.jpg")
    one, two = (only(f"https://example.org/get.php?id={number}").relative for number in (1, 2))
    assert one != two and one.parent == PurePosixPath("example.org")
    assert one.suffix == ".php"
