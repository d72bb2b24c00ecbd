"""What runs into a folder have done there: a database in that folder, by which a run that was broken off goes on.

SQLite keeps it whole when a process is killed or the disk is full: the entry of an input is written in a transaction of
its own after the input's files have taken their places, so that at most what was under way is done again.
"""

import json
import os
import sqlite3
import threading
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmcli.errors import UsageError, WriteError
from mmcli.output.drafts import in_words, leads_away
from mmcli.output.ledger import Written

NAME = ".mmcli.sqlite"
VERSION = 1  # of the tables

_TABLE = """
CREATE TABLE IF NOT EXISTS inputs (
    key BLOB PRIMARY KEY,   -- the input's place below the folder, in the bytes of its name
    size INTEGER,           -- of the input's file when it was read, in bytes
    changed INTEGER,        -- its time of change, in nanoseconds
    content TEXT,           -- the SHA-256 of what was in it; of an address the address
    recipe TEXT NOT NULL,   -- a hash of all else that decides the results
    files TEXT NOT NULL,    -- what was written: a list of [option, path, SHA-256]
    record BLOB NOT NULL,   -- the record as JSON, compressed; that of a failed input has an error
    failed INTEGER NOT NULL
) WITHOUT ROWID
"""


@dataclass(frozen=True)
class Stamp:
    """What tells an input from itself after a change; no `content` where it is not known (a pipe, a missing file)."""

    size: int | None = None
    changed: int | None = None  # nanoseconds
    content: str | None = None


@dataclass(frozen=True)
class Entry:
    """One input and what came of it."""

    key: str
    stamp: Stamp
    recipe: str
    files: tuple[Written, ...]
    record: dict[str, Any]

    @property
    def failed(self) -> bool:
        return "error" in self.record


class Manifest:
    """The entries of a folder. One process at a time has it open; a context, which closes it.

    Raises UsageError where another run has it, or another version of mmcli wrote it; WriteError where the machine does
    not let it be written or its file is damaged. Methods may be called from any thread.
    """

    def __init__(self, folder: Path):
        self.path = folder / NAME
        with in_words(folder):
            folder.mkdir(parents=True, exist_ok=True)
        for tail in ("", "-wal", "-journal", "-shm"):  # SQLite would follow a link
            if (link := folder / f"{NAME}{tail}").is_symlink():
                raise leads_away(link)
        self._lock = threading.Lock()
        with self._in_words():
            self._base = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=0)
            try:
                self._open()
            except BaseException:
                self._base.close()
                raise

    def _open(self) -> None:
        # Whoever has it open keeps the lock until the process ends, however it ends.
        for setting in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = NORMAL"):
            self._base.execute(f"PRAGMA {setting}")
        self._base.execute("BEGIN IMMEDIATE")
        [version] = self._base.execute("PRAGMA user_version").fetchone()
        if version not in (0, VERSION):
            raise UsageError(f"{self.path} was written by another version of mmcli", "Choose another folder")
        self._base.execute(_TABLE)
        self._base.execute(f"PRAGMA user_version = {VERSION}")
        self._base.execute("COMMIT")

    def get(self, key: str) -> Entry | None:
        """The entry of an input."""
        with self._lock, self._in_words():
            row = self._base.execute("SELECT * FROM inputs WHERE key = ?", (os.fsencode(key),)).fetchone()
        return None if row is None else self._entry(row)

    def put(self, entry: Entry) -> None:
        """Write an entry, in the place of an older one for the same input."""
        files = json.dumps([[one.option, one.path, one.digest] for one in entry.files])
        record = zlib.compress(json.dumps(entry.record).encode())
        stamp = entry.stamp
        row = (
            os.fsencode(entry.key),
            stamp.size,
            stamp.changed,
            stamp.content,
            entry.recipe,
            files,
            record,
            entry.failed,
        )
        with self._lock, self._in_words():
            self._base.execute("INSERT OR REPLACE INTO inputs VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)

    def entries(self) -> Iterator[Entry]:
        """All entries, in the order of their keys."""
        last = b""
        while True:  # in parts: nobody else has to wait for whoever takes them slowly, nor needs memory for all
            with self._lock, self._in_words():
                rows = self._base.execute("SELECT * FROM inputs WHERE key > ? ORDER BY key LIMIT 256", (last,))
                part = [self._entry(row) for row in rows]
            if not part:
                return
            yield from part
            last = os.fsencode(part[-1].key)

    def copy(self, path: Path) -> None:
        """Write all entries into a new file. Raises as the class does."""
        with self._lock, self._in_words():
            self._base.execute("VACUUM INTO ?", (os.fspath(path),))

    def replace(self, path: Path | None) -> None:
        """Take the entries of another file instead, or none. Raises as the class does."""
        with self._lock, self._in_words():
            if path is None:
                self._base.execute("DELETE FROM inputs")
                return
            self._base.execute("ATTACH ? AS other", (os.fspath(path),))
            try:
                [version] = self._base.execute("PRAGMA other.user_version").fetchone()
                if version != VERSION:
                    raise UsageError(f"{self.path} was written by another version of mmcli", "Choose another folder")
                self._base.execute("BEGIN")
                self._base.execute("DELETE FROM inputs")
                self._base.execute("INSERT INTO inputs SELECT * FROM other.inputs")
                self._base.execute("COMMIT")
            finally:
                if self._base.in_transaction:
                    self._base.execute("ROLLBACK")
                self._base.execute("DETACH other")

    def _entry(self, row: tuple[Any, ...]) -> Entry:
        key, size, changed, content, recipe, files, record, _ = row
        try:
            written = tuple(Written(*one) for one in json.loads(files))
            return Entry(
                os.fsdecode(key), Stamp(size, changed, content), recipe, written, json.loads(zlib.decompress(record))
            )
        except (ValueError, TypeError, zlib.error) as error:
            raise self._damaged() from error

    def close(self) -> None:
        with self._lock:
            self._base.close()

    def __enter__(self) -> "Manifest":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        """Turn what SQLite says into a sentence."""
        try:
            yield
        except sqlite3.Error as error:
            message = str(error).lower()
            if "locked" in message or "busy" in message:
                what = f"Another run of mmcli is writing into {self.path.parent}"
                raise UsageError(what, "Wait for its end, or choose another folder") from error
            if "full" in message:
                do = "Free some space or choose another place"
                raise WriteError(f"{self.path} cannot be written: the disk is full", do) from error
            if "malformed" in message or "not a database" in message or "no such column" in message:
                raise self._damaged() from error
            raise WriteError(f"{self.path} cannot be written ({error})", "Choose another place") from error

    def _damaged(self) -> WriteError:
        return WriteError(f"{self.path} is damaged", "Remove it, and what is in the folder is done again")


def read_records(folder: Path) -> list[dict[str, Any]]:
    """The records of all inputs of a folder that runs wrote into. Raises as `Manifest` does."""
    with closing(Manifest(folder)) as manifest:
        return [entry.record for entry in manifest.entries()]
