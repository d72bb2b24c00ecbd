"""Records as rows of CSV (RFC 4180), for spreadsheets: a row an object, an answer or a segment of a transcript.

A spreadsheet takes a cell that begins with `=`, `+`, `-` or `@` for a formula, whoever wrote it: a text that begins
like that, or with white space that some strip, gets an apostrophe in front, as OWASP's page on CSV injection advises.
"""

import csv
import io
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from mmcli.output.writers.text import named, readable

if TYPE_CHECKING:
    from mmcli.output.schema import Record

COLUMNS = {
    "image": ("source", "task", "label", "x0", "y0", "x1", "y1", "score", "probability", "text", "error"),
    "audio": ("source", "task", "start", "end", "text", "error"),
}
_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")

Cell = str | float | None


def head(kind: str) -> str:
    """The line of column names of records about an "image" or "audio"."""
    return _lines([COLUMNS[kind]])


def to_csv(record: "Record") -> str:
    """The rows of a record; a failed one has one with its error."""
    kind = "audio" if record.task in ("transcribe", "translate") else "image"
    begin: list[Cell] = [named(record), record.task]
    rows: list[list[Cell]]
    if record.kind == "failed":
        rows = [[*begin, *[None] * (len(COLUMNS[kind]) - 3), record.error]]
    elif kind == "audio":
        rows = [[*begin, round(one.start, 3), round(one.end, 3), one.text, None] for one in record.segments]
    else:
        rows = [
            [*begin, one.label, *(round(edge, 2) for edge in one.box), one.score, one.probability, None, None]
            for one in record.objects
        ]
        if record.task not in ("detect", "segment"):
            rows = [*rows, [*begin, *[None] * 7, record.text, None]]
    return _lines(rows)


def _lines(rows: Iterable[Iterable[Cell]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows([_cell(cell) for cell in row] for row in rows)
    return text.getvalue()


def _cell(value: Cell) -> Cell:
    if not isinstance(value, str):
        return round(value, 4) if isinstance(value, float) else value
    value = readable(value)
    return f"'{value}" if _FORMULA.match(value) else value
