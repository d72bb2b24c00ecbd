"""Objects in a model's answer, whatever the family, and what a grammar does: the way a family writes them.

A family's processor names its grammar; another one is another module here. Grammars read token ids, import no torch,
and never fail: what is whole becomes an object, and what is not becomes a sentence.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

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

    @classmethod
    def written(
        cls, label: str, loc: Loc, own: Sequence[Token], seg: tuple[int, ...] | None = None, **more: Any
    ) -> Self:
        """One whose score is that of `own`, all its tokens."""
        return cls(label, loc, seg, sum(token.logprob for token in own) / len(own), **more)


@dataclass(frozen=True)
class Parsed:
    """An answer: the objects in their order, the whole decoded text, and what was wrong, one sentence each."""

    objects: list[ParsedObject]
    text: str
    problems: list[str]


def parsed(
    objects: Sequence[ParsedObject], problems: Counter[str], tokens: Sequence[Token], text: DecodeText
) -> Parsed:
    """An answer of these objects, with a sentence for each kind of problem."""
    sentences = [problem if count == 1 else f"{problem} ({count} times)" for problem, count in problems.items()]
    return Parsed(list(objects), text([token.id for token in tokens]), sentences)


def named(label: str) -> str:
    """A label as problems name it; "" is an object without one."""
    shown = label if len(label) <= 40 else label[:39] + "…"
    return f'"{shown}"' if shown else "an object"


class ObjectGrammar(Protocol):
    """How a family writes the objects that it finds.

    Grammars derive theirs from it: `tokens`, `box` and either `read` or `parse` are all that one has to say.
    """

    mask_codes: ClassVar[int] = 0  # how many mask codes there are to choose from; 0 where it writes none
    divisors: ClassVar[tuple[int, ...]] = ()
    """Into how many parts a side may be divided, where there are several conventions: its own first."""

    @property
    def tokens(self) -> Mapping[str, tuple[int, int]]:
        """The tokens that it is made of, for people: their names, and the first and the last id of each kind."""
        ...

    def finds_places(self, ids: Sequence[int]) -> bool:
        """Whether any of these tokens tells a place."""
        return any(first <= id <= last for id in ids for first, last in self.tokens.values())

    def parse(self, tokens: Sequence[Token], decode_text: DecodeText, *, masks: bool = False) -> Parsed:
        """Read the objects in an answer, given without its stop token; never raises, whatever the tokens.

        `decode_text` gives the text of ids. With `masks` an object without a mask is a fault.
        """
        found = list(self.read(tokens, decode_text))
        objects = [one for one in found if isinstance(one, ParsedObject)]
        return parsed(objects, Counter(one for one in found if isinstance(one, str)), tokens, decode_text)

    def read(self, tokens: Sequence[Token], decode_text: DecodeText) -> Iterator[ParsedObject | str]:
        """What `parse` finds in turn: an object where one is whole, a sentence where one is not."""
        raise TypeError(f"{type(self).__name__} has neither read nor parse")

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
