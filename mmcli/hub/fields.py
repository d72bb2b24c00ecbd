"""Reading the fields of a checkpoint's JSON files: each of a known type and within bounds, or a ModelError names it.

The bounds are some four times beyond the largest published models. They keep what a configuration alone decides
(loops, tables, names) small; that the weights it speaks of exist is checked against the files (`hub/weights.py`).
"""

import math
from collections.abc import Collection, Mapping
from reprlib import Repr
from typing import Any

from mmcli.errors import ModelError

Bounds = tuple[int, int]

WIDTH: Bounds = (1, 1 << 15)  # numbers of a vector
INNER: Bounds = (1, 1 << 18)  # of a feed-forward
DEPTH: Bounds = (1, 256)  # layers
HEADS: Bounds = (1, 1024)
HEAD_WIDTH: Bounds = (2, 4096)
ROWS: Bounds = (1, 1 << 22)  # of a vocabulary
ID: Bounds = (0, (1 << 22) - 1)
SIDE: Bounds = (1, 4096)  # pixels
SOFT_TOKENS: Bounds = (1, 1 << 14)
MOST_STOPS = 100
EPSILON = (0.0, 1.0)

_repr = Repr()
_repr.maxlevel, _repr.maxlist, _repr.maxdict, _repr.maxstring, _repr.maxother, _repr.maxlong = 3, 4, 4, 60, 60, 40


def shown(value: Any) -> str:
    """A value as an error may quote it: short, whatever it is."""
    return _repr.repr(value)


class Fields:
    """One JSON object of a checkpoint. A field that is absent or null has its value in `otherwise`, if any."""

    def __init__(self, raw: Any, where: str, otherwise: Mapping[str, Any] | None = None, path: str = ""):
        """`where` begins error messages: a file, or whose it is. `path` leads to this object within it: "a.b."."""
        if not isinstance(raw, Mapping):
            raise ModelError(f"{where} sets {path.rstrip('.')} to {shown(raw)}, which is no JSON object")
        self.raw = raw
        self.where = where
        self.otherwise = otherwise or {}
        self.path = path

    def get(self, key: str) -> Any:
        """The value whatever its type; None where there is none."""
        value = self.raw.get(key)
        return self.otherwise.get(key) if value is None else value

    def __contains__(self, key: str) -> bool:
        return self.raw.get(key) is not None

    def wrong(self, key: str, expected: str) -> ModelError:
        """The error of a field that is not as expected."""
        if self.get(key) is None:
            return ModelError(f"{self.where} has no {self.path}{key}; expected {expected}")
        return ModelError(f"{self.where} sets {self.path}{key} to {shown(self.get(key))}; expected {expected}")

    def whole(self, key: str, low: int, high: int) -> int:
        value = self.get(key)
        if not _is_whole(value, low, high):
            raise self.wrong(key, f"a whole number from {low} to {high}")
        return value

    def maybe_whole(self, key: str, low: int, high: int) -> int | None:
        return None if self.get(key) is None else self.whole(key, low, high)

    def number(self, key: str, low: float, high: float) -> float:
        value = self.get(key)
        if not _is_number(value, low, high):
            raise self.wrong(key, f"a number from {low:g} to {high:g}")
        return float(value)

    def positive(self, key: str, high: float = 1e12) -> float:
        """A number above 0."""
        value = self.number(key, 0.0, high)
        if value == 0:
            raise self.wrong(key, "a number above 0")
        return value

    def flag(self, key: str) -> bool:
        value = self.get(key)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def text(self, key: str) -> str:
        value = self.get(key)
        if not isinstance(value, str):
            raise self.wrong(key, "a text")
        return value

    def part(self, key: str, otherwise: Mapping[str, Any] | None = None) -> "Fields":
        """An object within this one; absent or null, an empty one."""
        raw = self.get(key)
        return Fields({} if raw is None else raw, self.where, otherwise, f"{self.path}{key}.")

    def items(self, key: str, longest: int, length: int | None = None) -> list[Any]:
        """A list of at most `longest`, or of exactly `length`, values of any type."""
        value = self.get(key)
        if isinstance(value, tuple):  # from `otherwise`
            value = list(value)
        if not isinstance(value, list) or (len(value) > longest if length is None else len(value) != length):
            raise self.wrong(key, f"a list of at most {longest}" if length is None else f"a list of {length}")
        return value

    def square(self, key: str, low: int, high: int) -> int:
        """The side of a square: one number, or both sides in a list."""
        if not isinstance(self.get(key), list):
            return self.whole(key, low, high)
        height, width = self.wholes(key, low, high, longest=2, length=2)
        if height != width:
            raise self.wrong(key, "one side, for only squares are supported")
        return height

    def wholes(self, key: str, low: int, high: int, longest: int, length: int | None = None) -> tuple[int, ...]:
        """A list of whole numbers."""
        values = self.items(key, longest, length)
        if not all(_is_whole(value, low, high) for value in values):
            raise self.wrong(key, f"a list of whole numbers from {low} to {high}")
        return tuple(values)

    def numbers(self, key: str, low: float, high: float, longest: int, length: int | None = None) -> tuple[float, ...]:
        """A list of numbers."""
        values = self.items(key, longest, length)
        if not all(_is_number(value, low, high) for value in values):
            raise self.wrong(key, f"a list of numbers from {low:g} to {high:g}")
        return tuple(map(float, values))

    def ids(self, key: str) -> frozenset[int]:
        """Token ids, of which a single one may stand without its list; none where the field is absent."""
        value = self.get(key)
        if value is None:
            return frozenset()
        if isinstance(value, list):
            return frozenset(self.wholes(key, *ID, longest=MOST_STOPS))
        return frozenset({self.whole(key, *ID)})

    def unlike(self, key: str, value: int, others: Collection[int]) -> int:
        """`value`, the token under `key`. Raises ModelError if it is one of the others that mean something else."""
        if value in others:
            raise self.wrong(key, "a token of its own, which stands for nothing else")
        return value

    def require(self, key: str, *accepted: Any) -> None:
        """Raise ModelError unless a field is one of these (None: or absent), type and all."""
        value = self.get(key)
        if not any(type(value) is type(one) and value == one for one in accepted):
            raise ModelError(f"{self.where} sets {self.path}{key} to {shown(value)}; supported is {shown(accepted[0])}")


def _is_whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_number(value: Any, low: float, high: float) -> bool:
    # Whole numbers may be too large to be compared as floats, so the bounds come first.
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return known and low <= value <= high and math.isfinite(value)
