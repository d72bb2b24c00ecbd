"""Files are whole or not at all, and nothing is written where a link leads."""

import contextlib
import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from mmcli.errors import InputError, WriteError
from mmcli.output.drafts import Draft, atomic_write, check_writable


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
    with pytest.raises(WriteError, match="the disk is full"):
        atomic_write(Path("/dev/full"), b"x" * 100_000)


def test_a_write_that_fails_half_way_leaves_the_old_file(tmp_path):
    (tmp_path / "out").write_bytes(b"old")
    code = (
        "import resource, signal, sys; from pathlib import Path; from mmcli.output.drafts import atomic_write\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "atomic_write(Path(sys.argv[1]), b'x' * 100_000)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "out"], capture_output=True, text=True)
    assert "mmcli.errors.WriteError" in done.stderr and "cannot be written" in done.stderr
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"old"]


@pytest.fixture
def ordinary_user():
    """The rights of one, also where the tests run as root."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    yield
    os.seteuid(was)


@pytest.fixture
def open_folder(tmp_path):
    """A folder that any user can enter: TMPDIR may lie in one that belongs to root alone."""
    with tempfile.TemporaryDirectory(dir="/tmp" if os.name == "posix" else None) as name:
        Path(name).chmod(0o777)
        yield Path(name)


def test_a_folder_or_a_file_without_permission_is_told(open_folder, ordinary_user):
    (open_folder / "shut").mkdir()
    (open_folder / "kept").write_bytes(b"old")
    (open_folder / "kept").chmod(0o444)
    (open_folder / "shut").chmod(0o555)
    with pytest.raises(WriteError, match="may not be written to"):
        atomic_write(open_folder / "shut" / "out", b"x")
    with pytest.raises(WriteError, match="may not be written to"):
        check_writable(open_folder / "shut" / "more" / "out")
    with pytest.raises(InputError, match="write-protected"):
        atomic_write(open_folder / "kept", b"x")
    assert (open_folder / "kept").read_bytes() == b"old"


def test_a_file_that_is_replaced_hands_on_its_permissions(tmp_path):
    (tmp_path / "private").write_bytes(b"old")
    (tmp_path / "private").chmod(0o600)
    atomic_write(tmp_path / "private", b"new")
    assert stat.S_IMODE((tmp_path / "private").stat().st_mode) == 0o600


# -- inside a folder that was named ------------------------------------------------------------------------------


def put(kind, place, outside):
    """Something at a place inside the output folder that is not to be written through."""
    if kind == "link to a file":
        place.symlink_to(outside / "file")
    elif kind == "link to nothing":
        place.symlink_to(outside / "new")
    elif kind == "link to a device":
        place.symlink_to("/dev/null")
    elif kind == "FIFO":
        os.mkfifo(place)
    elif kind == "socket":
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as listener:
            listener.bind(str(place))


@pytest.mark.parametrize("kind", ["link to a file", "link to nothing", "link to a device", "FIFO", "socket"])
def test_links_and_what_is_no_plain_file_are_not_written_to_in_a_folder(open_folder, kind):
    out, outside = open_folder / "out", open_folder / "outside"
    for folder in (out, outside):
        folder.mkdir()
    (outside / "file").write_bytes(b"old")
    put(kind, out / "a.png", outside)
    with pytest.raises(InputError, match="is a link|no plain file"):
        Draft(out / "a.png", below=out)
    assert [path.name for path in out.iterdir()] == ["a.png"]
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == {"file": b"old"}


def test_a_folder_inside_that_is_a_link_is_not_entered(tmp_path):
    for name in ("out", "outside"):
        (tmp_path / name).mkdir()
    (tmp_path / "out" / "sub").symlink_to(tmp_path / "outside")
    with pytest.raises(InputError, match="sub is a link"):
        Draft(tmp_path / "out/sub/more/a.png", below=tmp_path / "out")
    assert list((tmp_path / "outside").iterdir()) == []
    (tmp_path / "way").symlink_to("out")  # the folder itself may be reached through one: it was named
    with Draft(tmp_path / "way/new/a.png", below=tmp_path / "way") as draft:
        draft.write(b"x")
        draft.commit()
    assert (tmp_path / "out/new/a.png").read_bytes() == b"x"


def test_a_folder_that_becomes_a_link_meanwhile_leads_nowhere(tmp_path):
    (tmp_path / "outside").mkdir()
    with Draft(tmp_path / "out/sub/a.png", below=tmp_path / "out") as draft:
        draft.write(b"x")
        (tmp_path / "out/sub").rename(tmp_path / "out/moved")
        (tmp_path / "out/sub").symlink_to(tmp_path / "outside")
        draft.commit()
    assert list((tmp_path / "outside").iterdir()) == [] and (tmp_path / "out/moved/a.png").read_bytes() == b"x"


def test_drafts_have_random_names_and_leave_each_other_alone(tmp_path):
    drafts = [Draft(tmp_path / "a.txt", below=tmp_path) for _ in range(3)]
    assert len({path.name for path in tmp_path.iterdir()}) == 3
    for number, draft in enumerate(drafts):
        draft.write(b"%d" % number)
    drafts[0].discard()
    drafts[1].commit()
    assert (tmp_path / "a.txt").read_bytes() == b"1" and len(list(tmp_path.iterdir())) == 2
    drafts[2].commit()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.txt": b"2"}


def test_an_open_descriptor_is_added_to_and_never_emptied(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"before\n")
    with log.open("ab") as file:
        atomic_write(Path(f"/dev/fd/{file.fileno()}"), b"after\n")
    assert log.read_bytes() == b"before\nafter\n"


@pytest.mark.parametrize("old", [None, b"old"])
def test_what_was_written_before_the_disk_was_full_is_kept_beside_what_was_there(tmp_path, old):
    path = tmp_path / "all.txt"
    if old:
        path.write_bytes(old)
    code = (
        "import resource, sys; from pathlib import Path; from mmcli.errors import WriteError\n"
        "from mmcli.output.drafts import Draft\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "with Draft(Path(sys.argv[1])) as draft:\n"
        "    draft.write(b'line\\n')\n"
        "    try: draft.write(b'x' * 2000)\n"
        "    except WriteError: print(draft.rescue().name)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    left = {"all.txt": old, "all.txt.part": b"line\n"} if old else {"all.txt": b"line\n"}
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == left
    assert done.stdout == ("all.txt.part\n" if old else "all.txt\n")
