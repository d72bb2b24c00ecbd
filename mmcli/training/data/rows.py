"""Rows of data files, whatever holds them: one object each, with where it stands, or why it cannot be used."""

import csv
import json
import mmap
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmcli.errors import InputError
from mmcli.example import Example
from mmcli.hub.fields import shown
from mmcli.media.naming import trouble

LONGEST = 16 << 20  # bytes of a row
DEEPEST = 64  # objects and lists within each other

Row = dict[str, Any]


@dataclass(frozen=True)
class BadRow:
    """A row of data that cannot be learned from: where it stands, and why, as a sentence without its full stop."""

    where: str  # "FILE:LINE" or a file
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class Unusable(ValueError):
    """Why a row cannot be used, in words that go on behind its place."""


Read = Example | BadRow


def checked(where: str, make: Callable[[], Iterable[Example]]) -> Iterator[Read]:
    """The examples of a row, or that it is none, and why."""
    try:
        examples = list(make())
    except Unusable as error:
        yield BadRow(where, str(error))
    except OSError as error:
        yield BadRow(where, trouble("a file of it", error).what)
    else:
        yield from examples


def rows(path: Path, name: str) -> "Iterator[tuple[str, Row | Unusable]]":
    """The rows of a .jsonl, .json (one list), .csv or .tsv file, one at a time, each with its place.

    `name` is what messages call the file. Raises InputError where the file as a whole cannot be read.
    """
    readers = {".json": _json_list, ".csv": _table, ".tsv": _table}
    try:
        yield from readers.get(path.suffix.lower(), _json_lines)(path, name)
    except OSError as error:
        raise trouble(name, error) from error


def first_row(path: Path) -> Row | None:
    """The first of the first few rows that is whole, to tell formats apart; None where there is none."""
    try:
        for number, (_, row) in enumerate(rows(path, path.name)):
            if isinstance(row, dict):
                return row
            if number == 8:
                break
    except InputError:
        pass
    return None


# -- JSON --------------------------------------------------------------------------------------------------------


def parse(data: bytes) -> Row:
    """The object that some bytes of JSON spell. Raises Unusable, in words, for all that is none."""
    if len(data) > LONGEST:
        raise Unusable(f"it is longer than {LONGEST >> 20} MiB")
    try:
        row = json.loads(data, parse_constant=_no_number)
    except Unusable:
        raise
    except RecursionError:
        raise Unusable("it is nested too deep") from None
    except ValueError as error:
        raise Unusable(f"it is no JSON ({error})") from None
    if not isinstance(row, dict):
        raise Unusable(f"it is {shown(row)} and not a JSON object")
    return row


def _no_number(name: str) -> None:
    raise Unusable(f"it holds {name}, which is no number")


def _json_lines(path: Path, name: str) -> "Iterator[tuple[str, Row | Unusable]]":
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(LONGEST + 1), b""), 1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if len(line) > LONGEST:  # the rest of it is passed over
                while (rest := file.readline(LONGEST)) and not rest.endswith(b"\n"):
                    pass
            if line.strip():
                yield f"{name}:{number}", attempt(line)


def attempt(data: bytes) -> Row | Unusable:
    """As `parse`, with what it would raise as a value."""
    try:
        return parse(data)
    except Unusable as error:
        return error


def _json_list(path: Path, name: str) -> "Iterator[tuple[str, Row | Unusable]]":
    with JsonFile(path, name) as file:
        for number, (key, start, end) in enumerate(file.items(), 1):
            if key:
                raise InputError(f"{name} is no list of rows, but an object with {key!r}", "Name its --format")
            yield f"{name}, item {number}", attempt(file.bytes(start, end))


_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|["{}\[\]]', re.DOTALL)


class JsonFile:
    """A JSON file of any size, of whose lists only one item at a time is parsed. A context, which closes it."""

    def __init__(self, path: Path, name: str):
        self._path, self._name = path, name

    def __enter__(self) -> "JsonFile":
        self._file = self._path.open("rb")
        empty = os.fstat(self._file.fileno()).st_size == 0
        self._data = b"" if empty else mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        return self

    def __exit__(self, *error: object) -> None:
        if isinstance(self._data, mmap.mmap):
            self._data.close()
        self._file.close()

    def bytes(self, start: int, end: int) -> bytes:
        """A part of the file, of which no more is taken than a row may have, and a byte."""
        return self._data[start : min(end, start + LONGEST + 1)]

    def items(self) -> Iterator[tuple[str, int, int]]:
        """The objects in the lists of the outermost object: the list's key, where each begins and ends.

        Where the file is one list its key is "". Raises InputError for a file that ends too early or is too deep.
        """
        open_: list[bytes] = []
        key, within, start = "", 0, 0  # `within`: how deep the list lies whose objects are wanted
        for match in _TOKEN.finditer(self._data):
            token = match[0]
            if token in b"{[":
                open_.append(token)
                if token == b"[" and not within and (len(open_) == 1 or open_ == [b"{", b"["]):
                    within = len(open_)
                elif within and len(open_) == within + 1:
                    start = match.start()
                if len(open_) > DEEPEST:
                    raise InputError(f"{self._name} is nested more than {DEEPEST} deep", "Get a fresh copy of it")
            elif token in b"}]":
                if not open_ or open_.pop() != (b"{" if token == b"}" else b"["):
                    raise self._damaged(match.start())
                if within and len(open_) == within and token == b"}":
                    yield key, start, match.end()
                within = 0 if len(open_) < within else within
            elif token == b'"':
                raise self._damaged(match.start())
            elif len(open_) == 1 and open_[0] == b"{" and len(token) < 256:
                key = token[1:-1].decode("utf-8", "replace")  # a value too, until the next key
        if open_:
            raise self._damaged(len(self._data))

    def _damaged(self, at: int) -> InputError:
        return InputError(f"{self._name} is no whole JSON: it is damaged or cut off at byte {at:,}", "Get a fresh copy")


# -- tables ------------------------------------------------------------------------------------------------------


def _table(path: Path, name: str) -> "Iterator[tuple[str, Row | Unusable]]":
    """The rows below the head of a table, by its columns; every value is a text."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        plain = path.suffix.lower() == ".tsv"  # tables of Common Voice hold single quotation marks
        reader = csv.reader(file, "excel-tab", quoting=csv.QUOTE_NONE) if plain else csv.reader(file)
        head: list[str] | None = None
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield f"{name}:{reader.line_num}", Unusable(f"it is no row of a table ({error})")
                continue
            if head is None:
                head = [cell.strip() for cell in cells]
            elif len(cells) == len(head):
                yield f"{name}:{reader.line_num}", dict(zip(head, cells, strict=True))
            elif cells:
                yield f"{name}:{reader.line_num}", Unusable(f"it has {len(cells)} columns and the head {len(head)}")
