"""Files that are there whole or not at all: written under a random name in their own folder, which is then changed."""

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmcli.errors import InputError, WriteError

# Folders are held open while a file in them is written, so that nobody can put a link in their place meanwhile.
_HANDLES = {os.open, os.mkdir, os.stat, os.unlink, os.rename, os.access} <= os.supports_dir_fd
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_DESCRIPTOR = re.compile(r"/dev/(?:fd/(\d+)|(stdout)|(stderr))|/proc/(?:self|thread-self|\d+)/fd/(\d+)")


class _Folder:
    """A folder and what is in it, by the folder's handle; by its path where the system has no handles (Windows)."""

    def __init__(self, path: Path, number: int | None = None):
        self.path = path
        if number is None and _HANDLES:
            number = os.open(path, _FOLDER)
        self.number = number

    def at(self, name: str) -> dict[str, Any]:
        """Where a name in the folder is, as arguments of the functions of `os`."""
        return {"path": self.path / name} if self.number is None else {"path": name, "dir_fd": self.number}

    def status(self, name: str) -> os.stat_result | None:
        """What a name stands for, links not followed; None for nothing."""
        try:
            return os.stat(**self.at(name), follow_symlinks=False)
        except FileNotFoundError:
            return None

    def enter(self, name: str) -> "_Folder":
        """The folder of that name in this one, which is made if there is none. InputError if it is a link."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(**self.at(name))
        status = self.status(name)
        if status is not None and stat.S_ISLNK(status.st_mode):
            raise leads_away(self.path / name)
        if status is not None and not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        number = None
        if self.number is not None:
            number = os.open(**self.at(name), flags=_FOLDER | getattr(os, "O_NOFOLLOW", 0))
        return _Folder(self.path / name, number)

    def rename(self, old: str, new: str) -> None:
        if self.number is None:
            os.replace(self.path / old, self.path / new)
        else:
            os.replace(old, new, src_dir_fd=self.number, dst_dir_fd=self.number)

    def close(self) -> None:
        if self.number is not None:
            os.close(self.number)
            self.number = None


class Draft:
    """A file on its way to a path, whose folders are made. It takes the path's place with `commit` only.

    With `below`, a folder, no link further down is followed, and nothing is written over but plain files; without it
    a link keeps pointing where it did. A file that is replaced hands on its permissions. Raises WriteError where the
    machine does not let us, InputError where the trouble is with this path alone.
    """

    def __init__(self, path: Path, below: Path | None = None, mode: int = 0o666):
        self.path = path
        self._whole = 0  # bytes up to the end of the last write that succeeded
        self._folder: _Folder | None = None
        self._number: int | None = None
        self._draft: str | None = f".mmcli-{secrets.token_hex(8)}.part"
        with in_words(path):
            try:
                self._open(path, below, mode)
            except BaseException:
                self.discard()
                raise

    def _open(self, path: Path, below: Path | None, mode: int) -> None:
        target = Path(os.path.realpath(path)) if below is None else path
        self._name = target.name
        folder = self._folder = _open_folder(target.parent, below)
        old = folder.status(self._name)
        if old is not None:
            if stat.S_ISLNK(old.st_mode):
                raise leads_away(path)
            if stat.S_ISDIR(old.st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            if not stat.S_ISREG(old.st_mode):
                raise InputError(f"{path} cannot be written: it is no plain file", "Choose another place")
            if not _is_open(**folder.at(self._name)):
                raise InputError(f"{path} cannot be written: it is write-protected", "Choose another place")
            mode = stat.S_IMODE(old.st_mode) & 0o777
        assert self._draft is not None
        self._number = os.open(**folder.at(self._draft), flags=_NEW, mode=mode)
        if old is not None and hasattr(os, "fchmod"):
            os.fchmod(self._number, mode)

    def write(self, data: bytes) -> None:
        """Add bytes: all of them or, where that fails, none."""
        assert self._number is not None, "it is committed or discarded"
        with in_words(self.path):
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._number, rest) :]
        self._whole += len(data)

    def mark(self, name: str, value: bytes) -> None:
        """Note something about the file beside its content, where the file system can."""
        if hasattr(os, "setxattr") and self._number is not None:
            with contextlib.suppress(OSError):
                os.setxattr(self._number, name, value)

    def commit(self, name: str | None = None) -> tuple[int, int]:
        """Take the place → the file's identity: its device and number there."""
        number, folder, draft = self._number, self._folder, self._draft
        assert number is not None and folder is not None and draft is not None, "it is committed or discarded"
        with in_words(self.path):
            os.ftruncate(number, self._whole)
            os.fsync(number)  # else its new name might outlive a crash of the machine, and its content not
            status = os.fstat(number)
            self._number = None
            os.close(number)
            folder.rename(draft, name or self._name)
        self._draft = None
        self.discard()
        return status.st_dev, status.st_ino

    def rescue(self) -> Path | None:
        """Keep what was written before a write failed → where; None if that is nothing.

        It takes the place only where no older file would be lost for something incomplete.
        """
        if not self._whole or self._folder is None:
            return None
        name = self._name
        if self._folder.status(name) is not None:
            name = f"{self._name}.part"
            if self._folder.status(name) is not None:
                name = f"{self._name}.{secrets.token_hex(4)}.part"
        self.commit(name)
        return self.path.with_name(name)

    def discard(self) -> None:
        """Leave everything as it was before."""
        if self._number is not None:
            os.close(self._number)
            self._number = None
        if self._folder is not None:
            if self._draft is not None:
                with contextlib.suppress(OSError):
                    os.unlink(**self._folder.at(self._draft))
            self._folder.close()
            self._folder = None

    def __enter__(self) -> "Draft":
        return self

    def __exit__(self, *error: object) -> None:
        self.discard()


class Straight:
    """A pipe, a device or an open descriptor (`/dev/fd/3`), which is written to as it is; used like a Draft."""

    def __init__(self, path: Path):
        self.path = path
        self._number: int | None = None
        descriptor = _DESCRIPTOR.fullmatch(str(path))
        with in_words(path):
            if descriptor:  # opened by its name it would be emptied, where it leads to a file
                number, out, err, proc = descriptor.groups()
                self._number = os.dup(1 if out else 2 if err else int(number or proc))
            else:
                self._number = os.open(path, os.O_WRONLY)

    def write(self, data: bytes) -> None:
        assert self._number is not None, "it is discarded"
        with in_words(self.path):
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._number, rest) :]

    def commit(self) -> tuple[int, int]:
        assert self._number is not None, "it is discarded"
        status = os.fstat(self._number)
        return status.st_dev, status.st_ino

    def rescue(self) -> None:
        return None

    def discard(self) -> None:
        if self._number is not None:
            os.close(self._number)
            self._number = None

    def __enter__(self) -> "Straight":
        return self

    def __exit__(self, *error: object) -> None:
        self.discard()


def is_special(path: Path) -> bool:
    """Whether a path is a pipe, a device or an open descriptor, to be written to as it is."""
    return bool(_DESCRIPTOR.fullmatch(str(path))) or (path.exists() and not path.is_dir() and not path.is_file())


def open_draft(path: Path) -> Draft | Straight:
    """What to write to for a path that the user named."""
    return Straight(path) if is_special(path) else Draft(path)


def atomic_write(path: Path, data: bytes) -> None:
    """Write a file that the user named as a whole, through a Draft; raises as that does."""
    with open_draft(path) as draft:
        draft.write(data)
        draft.commit()


def check_writable(path: Path) -> None:
    """Raise WriteError where it is clear before any work is done that a file or folder cannot be made there."""
    for place in (path, *path.parents):
        if place.is_dir():
            if not _is_open(place):
                raise _in_words(path, OSError(errno.EACCES, os.strerror(errno.EACCES)))
            return


def _is_open(path: str | Path, **more: Any) -> bool:
    """Whether a file or folder may be written to by the current user."""
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids, **more)


def leads_away(path: Path) -> InputError:
    """The InputError for a link where only what lies in the output folder may be written."""
    do = "Remove the link, or name the folder that it leads to"
    return InputError(f"{path} is a link, which may lead out of the output folder: nothing is written through it", do)


def _open_folder(path: Path, below: Path | None) -> _Folder:
    top = path if below is None else below
    top.mkdir(parents=True, exist_ok=True)
    folder = _Folder(top)
    for name in path.relative_to(top).parts:
        try:
            inner = folder.enter(name)
        finally:
            folder.close()
        folder = inner
    return folder


@contextlib.contextmanager
def in_words(path: Path) -> Iterator[None]:
    """Turn what the system says about a path into an error with a sentence."""
    try:
        yield
    except OSError as error:
        raise _in_words(path, error) from error


def _in_words(path: Path, error: OSError) -> InputError | WriteError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return WriteError(f"{path} cannot be written: the disk is full", "Free some space or choose another place")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return WriteError(f"{path} cannot be written: the folder may not be written to", "Choose another place")
    if error.errno == errno.EISDIR:
        return InputError(f"{path} cannot be written: it is a folder", "Name a file")
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return InputError(f"{path} cannot be written: a part of its path is a file", "Choose another place")
    if error.errno in (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.ELOOP):  # this name is the trouble
        return InputError(f"{path} cannot be written ({error.strerror or error})", "Choose another place")
    return WriteError(f"{path} cannot be written ({error.strerror or error})", "Choose another place")
