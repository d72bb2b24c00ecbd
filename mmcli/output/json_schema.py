"""The record's form for other programs, made from its classes: `python -m mmcli.output.json_schema` writes the files.

`mmcli/assets/record.schema.json` is a JSON Schema (draft 2020-12), `examples/record.md` a page for people.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Union, get_args, get_origin, get_type_hints

from mmcli.output.json_text import to_json
from mmcli.output.record import docs
from mmcli.output.schema import SCHEMA, Record

ROOT = Path(__file__).parents[2]
FILE = ROOT / "mmcli" / "assets" / "record.schema.json"
PAGE = ROOT / "examples" / "record.md"
NAMES = {str: "string", bool: "boolean", int: "integer", float: "number", NoneType: "null"}
KINDS = {"image": "an answer about images", "audio": "a transcript", "failed": "an input that failed"}


def json_schema() -> dict[str, Any]:
    """The schema of a record: one of three kinds, each with all its fields and no other."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"A record of mmcli, schema {SCHEMA}",
        "oneOf": [{"title": title, **_object(Record, kind)} for kind, title in KINDS.items()],
    }


def _object(kind: type, of: str) -> dict[str, Any]:
    hints = written(kind)
    own = {name: doc for name, doc in docs(kind).items() if of in doc.of}
    properties = {name: {**_type(hints[name], of), "description": doc.text} for name, doc in own.items()}
    if kind is Record:
        properties["schema"]["const"] = SCHEMA
    required = [name for name, doc in own.items() if not doc.optional or name == "error"]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def written(kind: type) -> dict[str, Any]:
    """The types of a class's fields as they are written: what is left out where it is None is never null."""
    hints = get_type_hints(kind)
    for name, doc in docs(kind).items():
        if doc.optional:
            hints[name] = Union[tuple(one for one in get_args(hints[name]) if one is not NoneType)]  # noqa: UP007
    return hints


def _type(kind: Any, of: str) -> dict[str, Any]:
    if isinstance(kind, type) and is_dataclass(kind):
        return _object(kind, of)
    if kind in NAMES:
        return {"type": NAMES[kind]}
    if get_origin(kind) is tuple:
        first, *rest = get_args(kind)
        length = {} if rest == [...] else {"minItems": 1 + len(rest), "maxItems": 1 + len(rest)}
        return {"type": "array", "items": _type(first, of), **length}
    if get_origin(kind) is Mapping:
        return {"type": "object", "additionalProperties": _type(get_args(kind)[1], of)}
    choices = [_type(one, of) for one in get_args(kind)]
    if all(set(one) == {"type"} for one in choices):
        return {"type": [one["type"] for one in choices]}
    return {"anyOf": choices}


def page() -> str:
    """The same as tables in Markdown."""
    blocks = [
        "# The record",
        f"With `--json` each input becomes one JSON object on a line, of schema {SCHEMA}. "
        "[record.schema.json](../mmcli/assets/record.schema.json) says the same to programs. "
        "This page is made from the code: `python -m mmcli.output.json_schema`.",
        _table(Record),
    ]
    for kind in _nested(Record):
        blocks += [f"## {kind.__name__}", (kind.__doc__ or "").strip().split("\n")[0], _table(kind)]
    return "\n\n".join(blocks) + "\n"


def _table(kind: type) -> str:
    hints, parted = written(kind), kind is Record
    rows = ["| field | type | what it holds |", "|---|---|---|"]
    for name, doc in docs(kind).items():
        where = ""
        if parted and doc.of != KINDS.keys():
            where = f" *(In {' and '.join(title for own, title in KINDS.items() if own in doc.of)}.)*"
        left_out = (
            " Only where there is one." if doc.optional and kind.__name__ != "Settings" and name != "error" else ""
        )
        rows.append(f"| `{name}` | {' or '.join(_words(hints[name]))} | {doc.text}{left_out}{where} |")
    return "\n".join(rows)


def _words(kind: Any) -> Iterator[str]:
    """What a field's type is called."""
    if isinstance(kind, type) and is_dataclass(kind):
        yield f"[{kind.__name__}](#{kind.__name__.lower()})"
    elif kind in NAMES:
        yield NAMES[kind]
    elif get_origin(kind) is tuple:
        yield f"list of {next(_words(get_args(kind)[0]))}"
    elif get_origin(kind) is Mapping:
        yield "object of numbers"
    else:
        for one in get_args(kind):
            yield from _words(one)


def _nested(kind: type) -> list[type]:
    """The classes that a class's fields hold, and those of theirs, each once."""
    found: dict[type, None] = {}

    def visit(kinds: Iterable[Any]) -> None:
        for one in kinds:
            if is_dataclass(one) and isinstance(one, type):
                found.setdefault(one)
                visit(get_type_hints(one).values())
            else:
                visit(get_args(one))

    visit(get_type_hints(kind).values())
    return list(found)


if __name__ == "__main__":
    FILE.write_text(to_json(json_schema(), indent=1) + "\n", "utf-8")
    PAGE.write_text(page(), "utf-8")
