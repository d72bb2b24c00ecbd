"""Where the files go that a run writes, and what may be written over."""

import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path, PurePosixPath

from PIL import Image

from mmcli.errors import InputError, UsageError
from mmcli.media.sources import Source
from mmcli.output.drafts import Draft, check_writable, in_words, is_special, open_draft
from mmcli.output.ledger import Ledger

IMAGE_SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
LOSSLESS_SUFFIXES = {".png": "PNG"}

LARGEST = 1 << 30  # bytes of a file that is looked at to see whether it is ours
MARK = "user.mmcli"  # an attribute that holds the SHA-256 of a file as we wrote it


def encoded(image: Image.Image, path: Path) -> bytes:
    """An image as a file in the format that a path's suffix names (PNG, JPEG or WebP). InputError if it cannot be."""
    options = {"PNG": {"compress_level": 4}, "JPEG": {"quality": 92, "subsampling": 0}, "WEBP": {"quality": 92}}
    kind = IMAGE_SUFFIXES.get(path.suffix.lower(), "PNG")
    buffer = io.BytesIO()
    try:
        image.save(buffer, kind, **options[kind])
    except (OSError, ValueError) as error:  # WebP ends at 16383 pixels, JPEG at 65535
        raise InputError(f"{path} cannot be written as {kind} ({error})", "Choose another suffix") from error
    return buffer.getvalue()


@dataclass
class Destination:
    """Where an option such as --overlay puts its files, one for each `what`: PATH for one, FOLDER for many.

    A folder is what exists as one, what ends with a slash or has no suffix, and whatever is given for `many` sources.
    In it the file of a single source lies flat and those of many where `Source.relative` says, under `suffix`, or
    under the source's own where that is one of `kept`. `joins`: PATH may hold the results of many.

    PATH is written over as `cp` would. In a folder nothing is written over but what mmcli has written there before
    and nobody has changed since, unless `overwrite`. An input of the run is never written over.

    Raises UsageError for a PATH whose suffix is none of `suffixes`, that many sources would write to, that is an
    input or another option's; WriteError where it is clear that nothing can be written.
    """

    option: str
    argument: str
    many: bool
    suffixes: dict[str, str] = field(default_factory=lambda: IMAGE_SUFFIXES)
    suffix: str = ".png"
    what: str = "picture"
    kept: tuple[str, ...] = ()
    joins: bool = False
    overwrite: bool = False
    ledger: Ledger = field(default_factory=Ledger)

    def __post_init__(self) -> None:
        path = self.named = Path(self.argument)
        if self.argument in ("", "-"):
            raise UsageError(f"{self.option} {self.argument!r} is no file or folder", "Name one")
        with in_words(path):
            special = is_special(path)
            self.folder = self.argument.endswith(("/", os.sep)) or path.is_dir() or not (path.suffix or special)
            if not self.folder:
                self._check_file(special)
            if not special:
                check_writable(path)

    def _check_file(self, special: bool) -> None:
        path = self.named
        if self.many and not self.joins and not special:
            raise UsageError(
                f"{self.option} {self.argument} names one file, but there are several {self.what}s",
                f"Name a folder: {self.option} {path.with_suffix('')}/",
            )
        if path.suffix.lower() not in self.suffixes and not special:
            raise UsageError(
                f"{self.option} {self.argument} has no suffix that can be written",
                f"Use {', '.join(self.suffixes)}, or a folder",
            )
        if (name := self.ledger.input_at(path)) is not None:
            what = f"{self.option} would write over {name}, which is read in this run"
            raise UsageError(what, "Choose another place")
        if not special and not self.ledger.claim(path, self.option):
            raise UsageError(f"{self.option} {self.argument} is where other results go", "Choose another place")

    def path(self, source: Source, part: str = "") -> Path:
        """The file for a source, or for a `part` of it; two results never share one."""
        if not self.folder:
            return self.named
        relative = source.relative if self.many else PurePosixPath(source.relative.name)
        if part:
            relative = relative.with_name(f"{relative.stem}-{part}{relative.suffix}")
        return self._free(self.named / relative, source.name)

    def _free(self, plain: Path, name: str) -> Path:
        """`photo.jpg` → `photo.png`, or `photo.jpg.png` if another result has that, or `photo.jpg-2.png`, …"""
        keeps = plain.suffix.lower() in self.kept
        suffix, stem = (plain.suffix, plain.stem) if keeps else (self.suffix, plain.name)
        path = plain.with_suffix(suffix)
        longer = (plain.with_name(f"{stem}{tail}{suffix}") for tail in _tails())
        while not self.ledger.claim(path, (self.option, name)):
            path = next(longer)
        return path

    def save(self, source: Source, image: Image.Image, part: str = "") -> None:
        """Write the image for a source, or for a part of it; raises as `write` does."""
        self.write(source, encoded(image, self.path(source, part)), part)

    def write(self, source: Source, data: bytes, part: str = "") -> None:
        """Write the file for a source, or for a part of it.

        Raises InputError if it may not or cannot be written, WriteError if none can.
        """
        path = self.path(source, part)
        if (name := self.ledger.input_at(path)) is not None:
            do = f"Name another folder with {self.option}"
            raise InputError(f"{path} is not written: it would overwrite {name}, which is read in this run", do)
        if not self.folder:
            with open_draft(path) as draft:
                draft.write(data)
                self.ledger.wrote(path, draft.commit(), self.option, source.name, digest(data).decode())
            return
        with Draft(path, below=self.named) as draft:
            known = self.ledger.older_digest(path)
            free = self.ledger.may_replace(path) and is_replaceable(path, data, known)
            if not (self.overwrite or self.ledger.made(path) or free):
                do = "Name another folder, or replace it with --overwrite"
                what = f"{path} exists already and was not written by mmcli, or was changed since: it is left as it is"
                raise InputError(what, do)
            draft.write(data)
            draft.mark(MARK, digest(data))
            self.ledger.wrote(path, draft.commit(), self.option, source.name, digest(data).decode())


def write_beside(source: Source, suffix: str, data: bytes, ledger: Ledger, *, overwrite: bool = False) -> None:
    """Write a file beside that of a source, called like it. Raises as `Destination.write`."""
    if source.path is None:
        raise InputError(f"{source.name} is no file that another could be beside", "Save it first")
    path = source.path.with_suffix(suffix)
    place = Destination("--sidecar", f"{path.parent}/", False, suffix=suffix, overwrite=overwrite, ledger=ledger)
    place.write(source, data)


def is_replaceable(path: Path, data: bytes, known: str | None = None) -> bool:
    """Whether nothing is lost when a file gets this content: there is none, it has it, or it is as we wrote it once.

    `known` is the SHA-256 of what an earlier run wrote there, if that is known; else a mark on the file tells.
    """
    try:
        if path.stat().st_size > LARGEST:
            return False
        old = path.read_bytes()
        if old == data or digest(old).decode() == known:
            return True
        return hasattr(os, "getxattr") and os.getxattr(path, MARK) == digest(old)
    except FileNotFoundError:
        return True
    except OSError:
        return False


def digest(data: bytes) -> bytes:
    """What MARK holds for a file with this content."""
    return hashlib.sha256(data).hexdigest().encode()


def _tails() -> Iterator[str]:
    yield ""
    for number in count(2):
        yield f"-{number}"
