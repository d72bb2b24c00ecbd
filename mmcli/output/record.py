"""Records as JSON, and back; and whether one still answers."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from typing import Any, get_args, get_type_hints

from mmcli.errors import InputError
from mmcli.output import json_text
from mmcli.output.schema import SCHEMA, Record, Settings
from mmcli.types import Doc


@cache
def docs(kind: type[Any]) -> dict[str, Doc]:
    """The `Doc` of each field of a dataclass, in their order."""
    hints = get_type_hints(kind, include_extras=True)
    return {one.name: next(arg for arg in get_args(hints[one.name]) if isinstance(arg, Doc)) for one in fields(kind)}


def to_dict(record: Record) -> dict[str, Any]:
    """A record as it is written: the fields of its kind in their order, numbers rounded as they are declared."""
    entry: dict[str, Any] = _plain(record, None, record.kind)
    return entry


def _plain(value: Any, digits: int | None, kind: str) -> Any:
    if is_dataclass(value):
        named: dict[str, Doc] = docs(type(value))  # type: ignore[arg-type]
        own = ((name, doc, getattr(value, name)) for name, doc in named.items())
        return {
            name: _plain(part, doc.digits, kind)
            for name, doc, part in own
            if kind in doc.of and not (doc.optional and part is None)
        }
    if isinstance(value, Mapping):
        return {name: _plain(part, digits, kind) for name, part in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(part, digits, kind) for part in value]
    if isinstance(value, float):
        return None if not math.isfinite(value) else value if digits is None else round(value, digits)
    return value


def from_dict(entry: Mapping[str, Any]) -> Record:
    """A record as it was before it was written. Raises InputError for one of another schema, or for none at all."""
    if entry.get("schema") != SCHEMA:
        what = f"A record of schema {entry.get('schema')} cannot be read: this version reads schema {SCHEMA}"
        raise InputError(what, "Run the command again")
    try:
        record: Record = _typed(Record, entry)
        return record
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise InputError(f"That is no record of schema {SCHEMA} ({error})", "Run the command again") from error


def _typed(kind: Any, value: Any) -> Any:
    """A value of JSON as the type that a field declares."""
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{name: _typed(hints[name], part) for name, part in value.items()})
    if isinstance(value, list):
        choices = [one for one in (kind, *get_args(kind)) if getattr(one, "__origin__", None) is tuple]
        inner = get_args(choices[0])[0]
        return tuple(_typed(inner, part) for part in value)
    if isinstance(value, Mapping):
        return next((_typed(one, value) for one in get_args(kind) if is_dataclass(one)), dict(value))
    return value


def run_key(
    *, task: str, model: str, weights: str, prompt: str | None, settings: Settings, source: str | None
) -> str | None:
    """The `key` of a record, from all that decides the answer; None where the `source` cannot be told apart.

    `weights` identifies the model's revision or files, `source` the input (`media/identity.py`).
    """
    if source is None:
        return None
    facts = {"schema": SCHEMA, "task": task, "model": model, "weights": weights, "prompt": prompt}
    facts |= {"settings": {name: value for name, value in asdict(settings).items() if value is not None}}
    text = json.dumps(facts | {"source": source}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def answers(entry: Mapping[str, Any], key: str | None) -> bool:
    """Whether a record that was written once is what a run of this key would give.

    Never one of an earlier schema, which does not tell how it was made; never one that failed.
    """
    return key is not None and entry.get("schema") == SCHEMA and entry.get("key") == key and "error" not in entry


def to_json_line(record: Record) -> str:
    """A record as one line of JSON with its newline."""
    return json_text.to_json_line(to_dict(record))
