"""What a run reads and what it has written: so that no result takes the place of an input, or of another result."""

import contextlib
import os
import stat
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmcli.media.sources import Source

Identity = tuple[int, int]  # the device, and the file's number there: the same for all of a file's names


@dataclass(frozen=True)
class Written:
    """A file that was written for an input."""

    option: str  # that asked for it
    path: str  # absolute, since options name folders of their own
    digest: str  # SHA-256 of its content


class Ledger:
    """The files of one run. Files are known by identity, so links, hard links and `A.png` for `a.png` do not deceive.

    `sources` are the inputs, `others` more files that are read: the list of names, files of the model.
    """

    def __init__(self, sources: "Iterable[Source]" = (), others: Iterable[str | Path] = ()):
        self._inputs: dict[Identity, str] = {}
        self._missing: dict[str, str] = {}  # inputs that are not there (yet), by path
        self._owners: dict[str, object] = {}  # by path
        self._written: dict[Identity, str] = {}  # the path of each
        self._files: dict[str, list[Written]] = defaultdict(list)  # by the name of the input
        self._older: dict[str, str] = {}  # files of earlier runs: the SHA-256 that they had, by path
        self.foreign: set[str] = set()  # paths of what lies in a store and is not ours
        for source in sources:
            self.reads(source)
        for other in others:
            self._note(Path(other), str(other))

    def reads(self, source: "Source") -> None:
        """Count a source among the inputs."""
        if source.path is not None:
            self._note(source.path, source.name)
        elif source.url is None and source.stream is not None:
            with contextlib.suppress(OSError, ValueError, AttributeError):  # standard input, where it is a file (`<`)
                status = os.fstat(source.stream.fileno())
                if stat.S_ISREG(status.st_mode):
                    self._inputs.setdefault((status.st_dev, status.st_ino), "standard input")

    def _note(self, path: Path, name: str) -> None:
        try:
            status = path.stat()
        except (OSError, ValueError):
            self._missing.setdefault(_place(path), name)
            return
        if stat.S_ISREG(status.st_mode) or stat.S_ISFIFO(status.st_mode):
            self._inputs.setdefault((status.st_dev, status.st_ino), name)

    def input_at(self, path: Path) -> str | None:
        """The name of the input that a path leads to, if it does."""
        identity = _identity(path)
        if identity is not None and identity in self._written:
            return None
        known = self._inputs.get(identity) if identity is not None else None
        return known or self._missing.get(_place(path))

    def claim(self, path: Path, owner: object) -> bool:
        """Whether a path is, or now becomes, its owner's: two results never share a file, by whatever names."""
        place, identity = _place(path), _identity(path)
        if identity is not None and self._written.get(identity, place) != place:
            return False
        return self._owners.setdefault(place, owner) == owner

    def wrote(self, path: Path, identity: Identity, option: str, name: str, digest: str) -> None:
        """Note that a file is this run's, written for the input called `name`."""
        self._written[identity] = _place(path)
        self._files[name].append(Written(option, _place(path), digest))

    def files_of(self, name: str) -> tuple[Written, ...]:
        """What was written for an input since this was asked last."""
        return tuple(self._files.pop(name, ()))

    def remember(self, file: Written, name: str) -> None:
        """Count a file that an earlier run wrote for an input as that input's."""
        self.claim(Path(file.path), (file.option, name))
        self._older[file.path] = file.digest

    def older_digest(self, path: Path) -> str | None:
        """The SHA-256 that an earlier run's file at this path had, if there is one."""
        return self._older.get(_place(path))

    def may_replace(self, path: Path) -> bool:
        """Whether nothing of others in a store has the place of a path."""
        return _place(path) not in self.foreign

    def made(self, path: Path) -> bool:
        """Whether a file is this run's."""
        return _identity(path) in self._written


def _place(path: Path) -> str:
    """The path with all links in its folders followed."""
    try:
        return os.path.join(os.path.realpath(path.parent), path.name)
    except (OSError, ValueError):
        return os.fspath(path)


def _identity(path: Path) -> Identity | None:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino
