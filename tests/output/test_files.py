"""Where outputs go, and that they are whole."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path, PurePosixPath

import pytest
from PIL import Image

from mmcli.errors import InputError, UsageError
from mmcli.media.sources import Source
from mmcli.output.files import LOSSLESS_SUFFIXES, Destination, atomic_write, save_picture


def source(name):
    return Source(name=name, path=Path(name), url=None, relative=PurePosixPath(name))


def test_a_written_file_has_its_folders_and_no_leftovers(tmp_path):
    atomic_write(tmp_path / "a" / "b" / "c.txt", b"hello")
    assert [p.name for p in (tmp_path / "a" / "b").iterdir()] == ["c.txt"]
    assert (tmp_path / "a" / "b" / "c.txt").read_bytes() == b"hello"


def test_a_written_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    atomic_write(tmp_path / "ours", b"")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "ours")]
    assert modes[0] == modes[1]


def test_a_link_keeps_its_target(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    atomic_write(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_bytes() == b"new"


def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    atomic_write(pipe, b"through")
    reader.join(5)
    assert got == [b"through"] and stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_folder_in_the_place_of_the_file_is_told(tmp_path):
    (tmp_path / "out.png").mkdir()
    with pytest.raises(InputError, match="it is a folder"):
        atomic_write(tmp_path / "out.png", b"x")
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_in_the_place_of_a_folder_is_told(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="a part of its path is a file"):
        atomic_write(tmp_path / "file" / "out.png", b"x")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told():
    with pytest.raises(InputError, match="the disk is full"):
        atomic_write(Path("/dev/full"), b"x" * 100_000)


def test_a_write_that_fails_half_way_leaves_the_old_file(tmp_path):
    (tmp_path / "out").write_bytes(b"old")
    code = (
        "import resource, signal, sys; from pathlib import Path; from mmcli.output.files import atomic_write\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "atomic_write(Path(sys.argv[1]), b'x' * 100_000)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "out"], capture_output=True, text=True)
    assert "mmcli.errors.InputError" in done.stderr and "cannot be written" in done.stderr
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"old"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_told(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="may not be written to"):
        atomic_write(tmp_path / "out", b"x")


@pytest.mark.parametrize("suffix", ["png", "jpg", "JPEG", "webp"])
def test_the_suffix_chooses_the_format(tmp_path, suffix):
    path = tmp_path / f"out.{suffix}"
    save_picture(Image.new("RGB", (8, 8), "red"), path)
    with Image.open(path) as image:
        assert image.format == {"jpg": "JPEG", "jpeg": "JPEG"}.get(suffix.lower(), suffix.upper())


def test_a_picture_too_large_for_the_format_is_told(tmp_path):
    with pytest.raises(InputError, match="cannot be written as WEBP"):
        save_picture(Image.new("RGB", (20_000, 1)), tmp_path / "out.webp")


@pytest.mark.parametrize(
    ("argument", "many", "expected"),
    [
        ("out.png", False, "out.png"),
        ("out.JPG", False, "out.JPG"),
        ("boxes/", False, "boxes/photos/a.png"),  # a slash makes a folder
        ("boxes", False, "boxes/photos/a.png"),  # so does a name without a suffix
        ("boxes", True, "boxes/photos/a.png"),
        ("boxes.v2/", True, "boxes.v2/photos/a.png"),
    ],
)
def test_one_path_or_a_mirrored_folder(argument, many, expected):
    assert Destination("--overlay", argument, many).path(source("photos/a.jpg")) == Path(expected)


def test_a_folder_that_exists_is_a_folder_whatever_its_name(tmp_path):
    (tmp_path / "my.png").mkdir()
    found = Destination("--overlay", str(tmp_path / "my.png"), False).path(source("a.jpg"))
    assert found == tmp_path / "my.png" / "a.png"


def test_two_sources_never_share_a_file():
    destination = Destination("--mask", "masks/", True)
    names = ["a.jpg", "a.png", "a.webp", "b/a.jpg", "a.jpg"]
    paths = [str(destination.path(source(name))) for name in names]
    assert paths == ["masks/a.png", "masks/a.png.png", "masks/a.webp.png", "masks/b/a.png", "masks/a.png"]


def test_sources_with_one_relative_place_are_numbered():
    destination = Destination("--mask", "masks/", True)
    sources = [Source(name=f"http://h{n}/a.jpg", path=None, url="", relative=PurePosixPath("a.jpg")) for n in range(4)]
    assert [destination.path(one).name for one in sources] == ["a.png", "a.jpg.png", "a.jpg-2.png", "a.jpg-3.png"]


@pytest.mark.parametrize(
    ("argument", "many", "suffixes", "sentence"),
    [
        ("out.png", True, None, "names one file, but there are several"),
        ("out.gif", False, None, "no suffix that can be written.*Use .png, .jpg"),
        ("out.jpg", False, LOSSLESS_SUFFIXES, "no suffix that can be written.*Use .png"),
    ],
)
def test_a_path_that_cannot_serve_is_a_usage_error(argument, many, suffixes, sentence):
    with pytest.raises(UsageError, match=sentence):
        Destination("--overlay", argument, many, **({"suffixes": suffixes} if suffixes else {}))


def test_the_input_is_never_written_over(tmp_path):
    picture = tmp_path / "a.png"
    picture.write_bytes(b"picture")
    one = Source(name=str(picture), path=picture, url=None, relative=PurePosixPath("a.png"))
    for argument in str(picture), str(tmp_path):
        with pytest.raises(UsageError, match="write over the picture"):
            Destination("--overlay", argument, False).path(one)
