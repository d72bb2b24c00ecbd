"""Records as JSON, and back; and whether one still answers."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from mmcli.errors import InputError
from mmcli.escape import NAME, shorten
from mmcli.output import json_text
from mmcli.output.schema import SCHEMA, Record, Settings
from mmcli.types import Doc

LARGEST = 1e300  # of a number in a record: what is more is no measurement


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
        what = f"A record of schema {shorten(repr(entry.get('schema')), NAME)} cannot be read: this version reads"
        raise InputError(f"{what} schema {SCHEMA}", "Run the command again")
    try:
        record: Record = _typed(Record, entry, "")
        return record
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise InputError(f"That is no record of schema {SCHEMA} ({error})", "Run the command again") from error


_hints = cache(get_type_hints)


def _typed(kind: Any, value: Any, place: str) -> Any:
    """A value of JSON as the type that a field declares; `place` tells where it stands. ValueError for another."""
    for one in get_args(kind) if isinstance(kind, UnionType) or get_origin(kind) is Union else (kind,):
        if one is NoneType and value is None:
            return None
        if isinstance(one, type) and is_dataclass(one) and isinstance(value, Mapping):
            hints = _hints(one)
            if unknown := value.keys() - hints.keys():
                raise ValueError(f"it has a field {shorten(repr(min(unknown)), NAME)}")
            return one(**{name: _typed(hints[name], part, f"{place}.{name}") for name, part in value.items()})
        if get_origin(one) is tuple and isinstance(value, list):
            kinds = get_args(one)
            kinds = kinds[:1] * len(value) if kinds[-1] is ... else kinds
            if len(kinds) == len(value):
                return tuple(
                    _typed(part, own, f"{place}.{i}") for i, (part, own) in enumerate(zip(kinds, value, strict=True))
                )
        if get_origin(one) is Mapping and isinstance(value, Mapping):
            return {name: _typed(get_args(one)[1], part, f"{place}.{name}") for name, part in value.items()}
        if one in (str, bool, int) and type(value) is one:
            return value
        if one is float and type(value) in (int, float) and -LARGEST <= value <= LARGEST:
            return float(value)
    raise ValueError(f"{place[1:]} is {shorten(repr(value), NAME)}")


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
