"""What a program gives in a call: checked before anything is read, and errors in the words of its language."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any, Literal, get_args, get_origin, get_type_hints

from mmcli.errors import MmcliError, UsageError

RANGES: dict[str, tuple[float, float]] = {
    "max_tokens": (1, 100_000),
    "temperature": (0, 10),
    "top_k": (0, 1_000_000),
    "top_p": (1e-9, 1),
    "min_score": (0, 1),
    "seed": (0, 2**63 - 1),
    "batch_size": (1, 256),
    "beams": (1, 32),
    "track": (1, 1000),
    "nms": (0, 1),
    "max_objects": (1, 10_000),
    "frames": (1, 100_000),
}
"""The least and the greatest value of what is a number, in the command line's options too."""

# Options of the command line that are arguments of calls under the same name.
_SHARED = (
    "adapter|batch-size|beams|boxes|detail|device|dtype|every|frames|hint|language|loc-divisor|mask-decoder|max-objects|"
    "max-tokens|min-score|nms|prompt|quantize|revision|seed|system|temperature|token-ids|top-k|top-p|track|words"
)
_VALUES = r"auto|none|cpu|cuda(?::\d+)?|mps|float32|bfloat16|float16|int8|int4|\d+(?:\.\d+)?"
_OPTION = re.compile(rf"--({_SHARED})(?![\w-])(?: ({_VALUES})(?![\w.]))?")


def checked(call: str, options: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """What is `given` to a call, by the names and types of `options` (a TypedDict); None stands for what is left out.

    Raises UsageError for a name that the call does not know, and for a value of another type or out of range.
    """
    known = get_type_hints(options)
    for name in given:
        if name not in known:
            from difflib import get_close_matches

            near = get_close_matches(name, known, n=1)
            do = f"Did you mean {near[0]}?" if near else f"It takes {', '.join(sorted(known))}"
            raise UsageError(f"{call} takes no argument {name!r}", do)
    return {name: value_of(name, known[name], value) for name, value in given.items() if value is not None}


def value_of(name: str, kind: Any, value: Any) -> Any:
    """A value as the type that it is to have: whole numbers of NumPy's types become Python's. Raises UsageError."""
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise UsageError(f"{name}={value!r} is not known", f"Choose {', '.join(map(repr, get_args(kind)))}")
        return value
    low, high = RANGES.get(name, (-float("inf"), float("inf")))
    needed = {int: Integral, float: Real}.get(kind, kind)
    fits = isinstance(value, needed) and (kind is bool or not isinstance(value, bool))
    if fits and (kind not in (int, float) or low <= value <= high):
        return kind(value)
    what = {int: "a whole number", float: "a number", str: "a str", bool: "True or False"}[kind]
    within = f" from {low:g} to {high:,}" if name in RANGES else ""
    raise UsageError(f"{name} cannot be {value!r}", f"Give {what}{within}")


@contextmanager
def in_python() -> Iterator[None]:
    """An error that is raised within names arguments, as a call has them, where it would name a command's options."""
    try:
        yield
    except MmcliError as error:
        error.what, error.do = (_OPTION.sub(_argument, text) for text in (error.what, error.do))
        error.args = error.what, error.do
        raise


def _argument(option: re.Match[str]) -> str:
    name, value = option[1].replace("-", "_"), option[2]
    if value is None:
        return name
    return f"{name}={value}" if value[0].isdigit() else f'{name}="{value}"'
