"""Files that are written: where they go, and that they are there whole or not at all."""

import contextlib
import errno
import io
import os
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from PIL import Image

from mmcli.errors import InputError, UsageError
from mmcli.media.sources import Source

PICTURE_SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
LOSSLESS_SUFFIXES = {".png": "PNG"}

_serial = count()


def atomic_write(path: Path, data: bytes) -> None:
    """Write a file through a temporary one beside it, so that nobody ever sees half of it; makes its folder.

    A link keeps pointing where it did; pipes and devices (/dev/stdout) are written to as they are. Raises InputError
    with the reason: the disk is full, the folder may not be written, …
    """
    temporary = None
    try:
        target = Path(os.path.realpath(path))
        if target.exists() and not target.is_file() and not target.is_dir():
            target.write_bytes(data)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.parent / f".mmcli-{os.getpid()}-{next(_serial)}.part"
        with temporary.open("xb") as file:
            file.write(data)
        os.replace(temporary, target)
    except OSError as error:
        raise _in_words(path, error) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def save_picture(image: Image.Image, path: Path) -> None:
    """Write a picture in the format that the path's suffix names (PNG, JPEG or WebP); InputError as `atomic_write`."""
    options = {"PNG": {"compress_level": 4}, "JPEG": {"quality": 92, "subsampling": 0}, "WEBP": {"quality": 92}}
    kind = PICTURE_SUFFIXES.get(path.suffix.lower(), "PNG")
    buffer = io.BytesIO()
    try:
        image.save(buffer, kind, **options[kind])
    except (OSError, ValueError) as error:  # WebP ends at 16383 pixels, JPEG at 65535
        raise InputError(f"{path} cannot be written as {kind} ({error})", "Choose another suffix") from error
    atomic_write(path, buffer.getvalue())


@dataclass
class Destination:
    """Where an option such as --overlay puts its files, one for each `what`: PATH for one, FOLDER for many.

    A folder is what exists as one, what ends with a slash or has no suffix, and whatever is given for `many` sources;
    in it each file lies where `Source.relative` says, under `suffix`. Raises UsageError for a PATH whose suffix is
    none of `suffixes`, and for a PATH that many sources would write to.
    """

    option: str
    argument: str
    many: bool
    suffixes: dict[str, str] = field(default_factory=lambda: PICTURE_SUFFIXES)
    suffix: str = ".png"
    what: str = "picture"
    _taken: dict[Path, str] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self):
        path = Path(self.argument)
        special = path.exists() and not path.is_dir() and not path.is_file()
        ends_as_folder = self.argument.endswith(("/", os.sep)) or path.is_dir() or not (path.suffix or special)
        self._folder = ends_as_folder
        if self._folder:
            return
        if self.many:
            raise UsageError(
                f"{self.option} {self.argument} names one file, but there are several {self.what}s",
                f"Name a folder: {self.option} {path.with_suffix('')}/",
            )
        if path.suffix.lower() not in self.suffixes and not special:
            raise UsageError(
                f"{self.option} {self.argument} has no suffix that can be written",
                f"Use {', '.join(self.suffixes)}, or a folder",
            )

    def path(self, source: Source) -> Path:
        """The file for a source; two sources never share one. Raises UsageError if that is the input itself."""
        if not self._folder:
            path = Path(self.argument)
        else:
            plain = Path(self.argument) / source.relative
            path = self._free(plain, source.name)
        if source.path is not None and path.exists() and _same_file(path, source.path):
            raise UsageError(f"{self.option} would write over the {self.what} {path} itself", "Choose another place")
        return path

    def _free(self, plain: Path, name: str) -> Path:
        """`photo.jpg` → `photo.png`, or `photo.jpg.png` if another source has that, or `photo.jpg-2.png`, …"""
        longer = (plain.with_name(f"{plain.name}{tail}{self.suffix}") for tail in _tails())
        path = plain.with_suffix(self.suffix)
        while self._taken.setdefault(path, name) != name:
            path = next(longer)
        return path


def _tails():
    yield ""
    for number in count(2):
        yield f"-{number}"


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _in_words(path: Path, error: OSError) -> InputError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return InputError(f"{path} cannot be written: the disk is full", "Free some space or choose another place")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return InputError(f"{path} cannot be written: the folder may not be written to", "Choose another place")
    if error.errno == errno.EISDIR:
        return InputError(f"{path} cannot be written: it is a folder", "Name a file")
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return InputError(f"{path} cannot be written: a part of its path is a file", "Choose another place")
    return InputError(f"{path} cannot be written ({error.strerror or error})", "Choose another place")
