"""Inputs that are no files: stdin, pipes, and lists of names from either."""

import io
import os
import socket
import sys
import threading
from pathlib import Path, PurePosixPath

import pytest
from naming import make, names, only

from mmcli.errors import InputError, UsageError
from mmcli.media.audio import open_audio
from mmcli.media.image import load_image
from mmcli.media.naming import STREAM_LIMIT
from mmcli.media.sources import IMAGE_EXTENSIONS, expand

pytestmark = pytest.mark.usefixtures("here")


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


class Endless(io.RawIOBase):
    """What `yes` or /dev/zero gives; `given` counts it."""

    def __init__(self, content: bytes, begin: bytes = b""):
        self.content, self.begin, self.given = content, begin, 0

    def readable(self):
        return True

    def read(self, size=-1):
        assert 0 <= size <= 1 << 20, "all of it is asked for"
        piece = (self.begin + self.content * (size // len(self.content) + 1))[:size]
        self.begin = b""
        self.given += len(piece)
        return piece


@pytest.mark.parametrize("content", [b"y\n", b"\0", bytes(range(256))])
def test_of_an_endless_stream_that_is_no_image_only_the_head_is_read(content):
    stream = Endless(content)
    with pytest.raises(InputError, match="text, not a picture|not a picture of a known kind"):
        load_image(only("-", stdin=stream))
    assert stream.given == 4096


def test_an_endless_stream_that_begins_like_an_image_is_read_to_the_limit(monkeypatch):
    monkeypatch.setattr("mmcli.media.image.STREAM", 3 << 20)
    stream = Endless(b"\0", begin=b"\x89PNG\r\n\x1a\n")
    with pytest.raises(InputError, match="longer than 3 MiB"):
        load_image(only("-", stdin=stream))
    assert stream.given <= 5 << 20


@pytest.mark.parametrize("content", [b"y\n", b"\0", bytes(range(256))])
def test_an_endless_stream_that_is_no_recording(monkeypatch, content):
    monkeypatch.setattr("mmcli.media.audio.UNKNOWN_STREAM", 3 << 20)
    stream = Endless(content)
    with pytest.raises(InputError, match="text, not a recording|longer than 3 MiB"):
        open_audio(only("-", stdin=stream))
    assert stream.given <= 5 << 20


def test_an_endless_list_of_names_is_a_usage_error(monkeypatch):
    monkeypatch.setattr("mmcli.media.sources.LIST", 2 << 20)
    with pytest.raises(UsageError, match="longer than 2 MiB"):
        expand([], files_from="-", extensions=IMAGE_EXTENSIONS, stdin=Endless(b"y\n"))


def test_an_endless_device():
    with pytest.raises(InputError, match="not a picture of a known kind"):
        load_image(only("/dev/zero"))


def test_a_sparse_file_is_not_read_to_be_told_from_an_image():
    with open("a.jpg", "wb") as file:
        file.truncate(2 << 30)
    with pytest.raises(InputError, match="not a picture of a known kind"):
        load_image(only("a.jpg"))


def test_a_fifo_that_nobody_writes_to(monkeypatch):
    monkeypatch.setattr("mmcli.media.pipes.FIFO_WAIT", 0.0)
    os.mkfifo("pipe.jpg")
    with pytest.raises(InputError, match="a FIFO that nobody writes to"):
        load_image(only("pipe.jpg"))


def test_a_fifo_whose_writer_takes_its_time(monkeypatch):
    monkeypatch.setattr("mmcli.media.pipes.FIFO_WAIT", 0.0)
    os.mkfifo("pipe.jpg")
    writing = os.open("pipe.jpg", os.O_RDWR)  # it is there, and has written nothing
    source, read = only("pipe.jpg"), []
    reader = threading.Thread(target=lambda: read.append(source.head(3)))
    reader.start()
    os.write(writing, b"abc")
    reader.join()
    os.close(writing)
    assert read == [b"abc"] and source.read() == b"abc" == source.read()


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


def test_what_has_no_end_leaves_room_for_a_model():
    """All that comes through a pipe lies in memory: 2 GB are the bound of a whole command."""
    assert STREAM_LIMIT < 1_300_000_000
