"""Records in tests: every one that a command printed is held against the JSON Schema that is checked in."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

SCHEMA = Path(__file__).parents[1] / "mmcli" / "assets" / "record.schema.json"


@cache
def _validator() -> Any:
    return Draft202012Validator(json.loads(SCHEMA.read_text("utf-8")))


def faults(record: dict) -> list[str]:
    """What is wrong with a record, by the schema."""
    return [_deepest(error) for error in _validator().iter_errors(record)]


def _deepest(error: Any) -> str:
    """Of the three kinds that a record may be of, the one that fits best says what does not."""
    own = [inner for inner in error.context if inner.schema_path[0] == _kind(error.instance)]
    return "; ".join(inner.message for inner in own) or error.message


def _kind(record: dict) -> int:
    return 2 if "error" in record else 1 if "segments" in record else 0


def read(text: str) -> Iterator[dict]:
    """The records in lines of JSON, each one valid; other objects as they are."""
    for line in text.splitlines():
        entry = json.loads(line)
        if "task" in entry:
            assert faults(entry) == [], entry
        yield entry
