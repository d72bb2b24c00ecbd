"""Boxes and points in half pixels of the image as the model saw it: shrunk to fit, never enlarged.

    words <box> y0 x0 y1 x1 </box>      words <point> x y </point>

Each mark and each number is one token; 7 stands for the pixel 14 of the shrunk image. What was added to that on the
right and below moves nothing. Words may be missing, and may stand without a place.
Source: transformers `models/fuyu/processing_fuyu.py` (`post_process_box_coordinates`).
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from mmcli.decode.locations import Box, Loc, is_empty
from mmcli.decode.objects import DecodeText, ObjectGrammar, Parsed, ParsedObject, named, parsed
from mmcli.types import Token

UNIT = 2  # pixels
SIZES = {"box": 4, "point": 2}  # numbers of each kind


@dataclass(frozen=True)
class Fit:
    """The size that images are shrunk to fit into, sides in proportion; smaller ones stay as they are."""

    height: int = 1080
    width: int = 1920

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of an image after that, in whole pixels, at least one."""
        if height <= self.height and width <= self.width:
            return height, width
        scale = min(self.height / height, self.width / width)
        return max(1, int(height * scale)), max(1, int(width * scale))

    def to_pixels(self, x: float, y: float, height: int, width: int) -> tuple[float, float]:
        """A place in the model's units → in pixels of an image of that size, moved into it."""
        small_height, small_width = self.resized(height, width)
        return min(max(UNIT * x * width / small_width, 0.0), width), min(
            max(UNIT * y * height / small_height, 0.0), height
        )

    def to_units(self, x: float, y: float, height: int, width: int) -> tuple[int, int]:
        """The reverse, rounded to whole units."""
        small_height, small_width = self.resized(height, width)
        x, y = min(max(x, 0.0), width), min(max(y, 0.0), height)
        return round(x * small_width / width / UNIT), round(y * small_height / height / UNIT)


@dataclass(frozen=True)
class HalfPixelGrammar(ObjectGrammar):
    """This grammar, with the tokenizer's ids of its tokens."""

    opens: Mapping[int, str]  # token id → "box" or "point"
    closes: Mapping[int, str]
    numbers: Mapping[int, int]  # token id → the number that it spells
    fit: Fit = Fit()  # noqa: RUF009 (frozen)

    @cached_property
    def names(self) -> dict[int, str]:
        """The marks as text: token id → <box>, </box>, <point> or </point>."""
        ends = {id: f"</{kind}>" for id, kind in self.closes.items()}
        return {id: f"<{kind}>" for id, kind in self.opens.items()} | ends

    @property
    def tokens(self) -> dict[str, tuple[int, int]]:
        """As `ObjectGrammar.tokens`."""
        return {name: (id, id) for id, name in self.names.items()}

    def finds_places(self, ids: Sequence[int]) -> bool:
        """As `ObjectGrammar.finds_places`."""
        return any(id in self.opens for id in ids)

    def box(self, loc: Loc, width: int, height: int, divisor: int | None = None) -> Box:
        """As `ObjectGrammar.box`; a point is a box without extent."""
        if len(loc) == SIZES["point"]:
            x, y = self.fit.to_pixels(loc[0], loc[1], height, width)
            return x, y, x, y
        y0, x0, y1, x1 = loc
        return *self.fit.to_pixels(x0, y0, height, width), *self.fit.to_pixels(x1, y1, height, width)

    def encode(self, kind: str, values: Sequence[float], width: int, height: int) -> list[int]:
        """The tokens of a box y0 x0 y1 x1 or a point x y in pixels of an image of that size.

        Raises ValueError, in words, for what is none, and where the tokenizer lacks a number.
        """
        if len(values) != SIZES[kind]:
            raise ValueError(f"a {kind} has {SIZES[kind]} numbers, not {len(values)}")
        pairs = [values] if kind == "point" else [values[1::-1], values[:1:-1]]
        units = [self.fit.to_units(x, y, height, width) for x, y in pairs]
        spelled = {number: id for id, number in self.numbers.items()}
        numbers = [number for x, y in units for number in ((x, y) if kind == "point" else (y, x))]
        if missing := sorted(set(numbers) - set(spelled)):
            raise ValueError(f"the model has no token for {missing[0]}")
        [first], [last] = ([id for id, own in marks.items() if own == kind] for marks in (self.opens, self.closes))
        return [first, *(spelled[number] for number in numbers), last]

    def parse(self, tokens: Sequence[Token], decode_text: DecodeText, *, masks: bool = False) -> Parsed:
        """As `ObjectGrammar.parse`; an object's label are the words in front of it."""
        objects: list[ParsedObject] = []
        problems: Counter[str] = Counter()
        for place in self._places(tokens):
            label = decode_text([token.id for token in place.words]).strip()
            problem = _fault(place, label)
            if problem is None:
                found = ParsedObject.written(label, tuple(place.numbers), place.words + place.marks)
                double = next((i for i, one in enumerate(objects) if (one.label, one.loc) == (label, found.loc)), None)
                if double is None:
                    objects.append(found)
                else:
                    problem = f"{named(label)} is repeated at the same place; it is kept once"
                    objects[double] = max(objects[double], found, key=lambda one: one.score)
            if problem:
                problems[problem] += 1
        return parsed(objects, problems, tokens, decode_text)

    def _places(self, tokens: Sequence[Token]) -> "Iterator[_Place]":
        """The answer cut at its marks: every one that begins a place, and every other that ends none."""
        place = _Place()
        for token in tokens:
            if token.id in self.opens:
                if place.kind:
                    yield place
                    place = _Place()
                place.kind = self.opens[token.id]
                place.marks.append(token)
            elif token.id in self.closes:
                place.end = self.closes[token.id]
                place.marks.append(token)
                yield place
                place = _Place()
            elif place.kind and token.id in self.numbers:
                place.numbers.append(self.numbers[token.id])
                place.marks.append(token)
            elif place.kind:  # neither a number nor an end
                yield place
                place = _Place(words=[token])
            else:
                place.words.append(token)
        if place.kind:
            yield place


@dataclass
class _Place:
    """What stands at one place of the answer, whole or not."""

    words: list[Token] = field(default_factory=list)  # in front of it
    marks: list[Token] = field(default_factory=list)  # itself
    kind: str = ""  # how it begins
    end: str = ""  # how it ends
    numbers: list[int] = field(default_factory=list)


def _fault(place: _Place, label: str) -> str | None:
    """Why a place is none, or None."""
    if not place.kind:
        return f"a {place.end} ends that has not begun"
    what = f"the {place.kind} of {named(label)}"
    count, wanted = len(place.numbers), SIZES[place.kind]
    if place.end and place.end != place.kind:
        return f"{what} ends as a {place.end}"
    if count != wanted:
        return f"{what} has {count} {'of' if count < wanted else 'numbers instead of'} {wanted}" + (
            " numbers" if count < wanted else ""
        )
    if not place.end:
        return f"{what} does not end"
    if place.kind == "box" and is_empty(place.numbers):
        return f"{what} is empty"
    return None
