"""Results that earlier runs wrote, read back: lines of JSON from a file or a pipe, or the records of a folder."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from mmcli import rle
from mmcli.batch.manifest import NAME as MANIFEST
from mmcli.batch.manifest import read_records
from mmcli.errors import InputError
from mmcli.media.limits import PIXELS
from mmcli.media.naming import printable, trouble
from mmcli.output.record import from_dict
from mmcli.output.schema import Record

LONGEST = 16 << 20  # bytes of a line: a record with the words of a day of speech has a third of it
HOPELESS = 10  # lines in a row that are no records, after which the rest is none either

_DO = "Name what --json has written"


class Unreadable(InputError):
    """What of results cannot be read; `name` is what the sentence calls it."""

    def __init__(self, name: str, what: str, do: str):
        super().__init__(what, do)
        self.name = name


def read_results(name: str, stdin: BinaryIO) -> Iterator[Record | Unreadable]:
    """The records in a file of JSON lines, in a folder that a run wrote into, or on standard input ("-").

    What cannot be read, and a line that is no record of this schema, is an error in its place. After a first line that
    does not even begin like a record, or many in a row that are none, nothing more is read. Of a folder raises what
    `Manifest` does.
    """
    shown = "standard input" if name == "-" else printable(name)
    try:
        if name != "-" and Path(name).is_dir():
            yield from _of_folder(name, shown)
        else:
            yield from _of_lines(name, shown, stdin)
    except InputError as error:
        yield Unreadable(shown, error.what, error.do)


def _of_folder(name: str, shown: str) -> Iterator[Record | Unreadable]:
    if not (Path(name) / MANIFEST).is_file():
        do = "Name a folder that was given to --output, or files of JSON lines"
        raise InputError(f"No run of mmcli wrote into {shown}", do)
    for entry in read_records(Path(name)):
        try:
            yield checked(from_dict(entry))
        except InputError as error:
            yield Unreadable(shown, f"A record in {shown} cannot be used: {_small(error.what)}", error.do)


def _of_lines(name: str, shown: str, stdin: BinaryIO) -> Iterator[Record | Unreadable]:
    broken, first = 0, True
    for number, line in enumerate(_lines(name, stdin), 1):
        if not line.strip():
            continue
        try:
            yield _record(line)
            broken = 0
        except InputError as error:
            broken += 1
            line_name = f"Line {number} of {shown}"
            yield Unreadable(line_name, line_name + error.what, error.do)
            if first and not line.lstrip(b"\xef\xbb\xbf \t").startswith(b"{"):
                return
            if broken == HOPELESS or len(line) > LONGEST:
                raise InputError(f"The rest of {shown} is left out: it holds no records", _DO) from error
        first = False


def _record(line: bytes) -> Record:
    """The record in a line. Raises InputError, whose sentence lacks its beginning."""
    if len(line) > LONGEST:
        raise InputError(f" is longer than {LONGEST >> 20} MiB", _DO)
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(" is no JSON", _DO) from error
    if not isinstance(entry, dict):
        raise InputError(" is no record", _DO)
    try:
        return checked(from_dict(entry))
    except InputError as error:
        raise InputError(f": {_small(error.what)}", error.do) from error


def _small(sentence: str) -> str:
    """A sentence behind a colon."""
    return sentence[:1].lower() + sentence[1:]


def _lines(name: str, stdin: BinaryIO) -> Iterator[bytes]:
    """The lines of a file or of standard input, each as far as it is looked at."""
    try:
        if name == "-":
            yield from iter(lambda: stdin.readline(LONGEST + 1), b"")
            return
        with open(name, "rb") as file:
            yield from iter(lambda: file.readline(LONGEST + 1), b"")
    except (OSError, ValueError) as error:
        raise trouble("standard input" if name == "-" else name, error) from error


def checked(record: Record) -> Record:
    """A record whose masks can be decoded: of its own size, and with runs that fill them. InputError for another."""
    width, height = record.width or 0, record.height or 0
    for found in record.objects:
        mask = found.mask
        if mask is not None and (mask.size != (height, width) or width * height > PIXELS or not rle.fills(mask)):
            what = f'The mask of "{printable(found.label)}" does not fit a picture of {width} × {height} pixels'
            raise InputError(what, "Run the command again")
    return record
