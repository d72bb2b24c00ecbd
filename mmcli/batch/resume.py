"""Going on where an earlier run into the same folder ended: what is done already is passed over."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mmcli.batch.manifest import Entry, Manifest, Stamp
from mmcli.output.ledger import Written
from mmcli.output.record import to_dict

if TYPE_CHECKING:
    from mmcli.media.sources import Source
    from mmcli.output.schema import Record


@dataclass
class Resume:
    """Which inputs of a run need to be done, and the note of those that were.

    An input is passed over where its results were written by the same recipe from the same content and are still there
    as they were written. Where it failed like that, it is passed over too, unless `retry`; `force` does all again.
    """

    manifest: Manifest
    recipe: Callable[[], str | None]  # see `Entry.recipe`; None where it is not known before the model is there
    force: bool = False
    retry: bool = False
    as_written: "Callable[[Written], bool]" = lambda file: is_as_written(file)
    before: int = 0  # inputs that were done by earlier runs
    failed_before: list[str] = field(default_factory=list)  # names of those that failed then and were passed over
    _keys: "dict[Source, str]" = field(default_factory=dict, repr=False)
    _stamps: dict[str, Stamp] = field(default_factory=dict, repr=False)

    def name(self, sources: "Iterable[Source]") -> "list[tuple[Source, Entry]]":
        """Give each source of the run its key → those that there are entries for."""
        taken: set[str] = set()
        for source in sources:
            key = source.relative.as_posix()
            if key in taken:  # as `/d/a` and `d/a`
                key = f"{key}\n{source.name}"
            taken.add(key)
            self._keys[source] = key
        return [(source, entry) for source in self._keys if (entry := self.entry(source)) is not None]

    def entry(self, source: "Source") -> Entry | None:
        """What there is on a source that was named."""
        return self.manifest.get(self._keys[source])

    def pending(self, sources: "Iterable[Source]") -> "Iterator[Source]":
        """Those of the sources that there is something to do for, in their order."""
        for source in sources:
            key = self._keys[source]
            entry = None if self.force else self.manifest.get(key)
            stamp = self._stamps[key] = stamp_of(source, entry.stamp if entry else None)
            if entry is None or not self._holds(entry, stamp):
                yield source
            elif entry.failed:
                self.failed_before.append(source.name)
            else:
                self.before += 1

    def _holds(self, entry: Entry, stamp: Stamp) -> bool:
        if stamp.content is None or stamp.content != entry.stamp.content or entry.recipe != self.recipe():
            return False
        if entry.failed:
            return not self.retry
        return all(self.as_written(one) for one in entry.files)

    def note(self, source: "Source", record: "Record", files: Iterable[Written]) -> None:
        """Note what came of a source once its files are in their places. Raises as `Manifest` does."""
        key = self._keys[source]
        stamp, recipe = self._stamps.pop(key, Stamp()), self.recipe()
        if recipe is None:
            return
        if stamp.size is not None and _status(source) != (stamp.size, stamp.changed):
            stamp = Stamp()  # it was changed while it was read: nobody knows what was seen
        self.manifest.put(Entry(key, stamp, recipe, tuple(files), to_dict(record)))


def stamp_of(source: "Source", known: Stamp | None = None) -> Stamp:
    """What there is in an input; a file that has not changed since it was `known` is not read again."""
    if source.problem is not None:
        return Stamp()
    if source.url is not None or source.content is not None:
        content = source.content or f"url {hashlib.sha256(str(source.url).encode()).hexdigest()}"
        return Stamp(content=_with(content, source))
    status = _status(source)
    if status is None:
        return Stamp()
    if known is not None and known.content is not None and (known.size, known.changed) == status:
        return Stamp(*status, _with(known.content.partition(" ")[0], source))
    try:
        content = digest_of(Path(source.path or ""))
    except OSError:
        return Stamp()
    return Stamp(*status, _with(content, source))


def _with(content: str, source: "Source") -> str:
    """A file's content and what else decides its answer alone."""
    return f"{content} {source.beside}" if source.beside else content


def _status(source: "Source") -> tuple[int, int] | None:
    """Size and time of change of a plain file."""
    try:
        status = os.stat(source.path or "")
    except (OSError, ValueError):
        return None
    return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None


def is_as_written(file: Written) -> bool:
    """Whether a file holds what was written into it."""
    try:
        return digest_of(Path(file.path)) == file.digest
    except OSError:
        return False


def digest_of(path: Path) -> str:
    """SHA-256 of a file's content. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
