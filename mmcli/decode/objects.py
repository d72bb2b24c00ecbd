"""Objects in a model's answer, whatever the family, and what a grammar does: the way a family writes them.

A family's processor names its grammar; another one is another module here. Grammars read token ids, import no torch,
and never fail: what is whole becomes an object, and what is not becomes a sentence.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mmcli.boxes import overlap
from mmcli.decode.locations import Box, Loc
from mmcli.types import Token

DOUBLE = 0.9  # intersection over union from which on two boxes of one label are one

DecodeText = Callable[[list[int]], str]


@dataclass(frozen=True)
class ParsedObject:
    """One object: its label, its box as the model wrote it, its mask codes where it has them, and its score.

    The score is the mean log-probability of the object's own tokens: places, mask codes and label. A family that finds
    in a way of its own may know how likely the object is right, and what found it. Where it was written as points
    (`quad`, `polygons`: x and y by turns, in the integers of the grammar), `loc` is the box that holds them.
    """

    label: str
    loc: Loc
    seg: tuple[int, ...] | None
    score: float  # NaN where nothing was written
    probability: float | None = None
    found_by: str | None = None
    quad: tuple[int, ...] | None = None  # the four corners of a piece of text, eight integers
    polygons: tuple[tuple[int, ...], ...] = ()  # outlines, which together are the object


@dataclass(frozen=True)
class Parsed:
    """An answer: the objects in their order, the whole decoded text, and what was wrong, one sentence each."""

    objects: list[ParsedObject]
    text: str
    problems: list[str]


class ObjectGrammar(Protocol):
    """How a family writes the objects that it finds."""

    @property
    def tokens(self) -> Mapping[str, tuple[int, int]]:
        """The tokens that it is made of, for people: their names, and the first and the last id of each kind."""
        ...

    @property
    def mask_codes(self) -> int:
        """How many mask codes there are to choose from; 0 where it writes none."""
        ...

    @property
    def divisors(self) -> tuple[int, ...]:
        """Into how many parts a side may be divided, where there are several conventions: its own first."""
        ...

    def finds_places(self, ids: Sequence[int]) -> bool:
        """Whether any of these tokens tells a place."""
        ...

    def parse(self, tokens: Sequence[Token], decode_text: DecodeText, *, masks: bool = False) -> Parsed:
        """Read the objects in an answer, given without its stop token; never raises, whatever the tokens.

        `decode_text` gives the text of ids. With `masks` an object without a mask is a fault.
        """
        ...

    def box(self, loc: Loc, width: int, height: int, divisor: int | None = None) -> Box:
        """What the model wrote as a box → x0 y0 x1 y1 in pixels of an image of that size.

        `divisor` is one of `divisors`; None: the grammar's own.
        """
        ...


class PointGrammar(ObjectGrammar, Protocol):
    """A grammar whose objects may have a `quad` or `polygons`."""

    def points(self, written: Sequence[int], width: int, height: int) -> tuple[float, ...]:
        """What the model wrote as points → x and y by turns, in pixels of an image of that size."""
        ...


def coincide(one: ParsedObject, other: ParsedObject, least: float = DOUBLE) -> bool:
    """Whether two objects are one: the same label, and boxes that overlap (IoU) by at least `least`."""
    return one.label == other.label and overlap(one.loc, other.loc) >= least
