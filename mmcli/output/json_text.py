"""JSON that is the same to every reader."""

import json
from typing import Any

from mmcli.escape import escape_json


def to_json(entry: Any, indent: int | None = None) -> str:
    """JSON in which no character is invisible or ends a line for some readers: those are written as escapes.

    Among them are halves of surrogate pairs, which names of files that are not UTF-8 hold: it is always valid UTF-8,
    with text of any script as it is.
    """
    return escape_json(json.dumps(entry, ensure_ascii=False, allow_nan=False, indent=indent))


def to_json_line(entry: Any) -> str:
    """The same on one line, with its newline."""
    return to_json(entry) + "\n"
