"""Places as quantised coordinates: `<loc_0>` … `<loc_999>` are the thousand bins of a side, read at their middles.

The language is Florence-2's (arXiv:2311.06242; transformers `models/florence2/processing_florence2.py`). Labels stand
in front of their places, and how the places are to be taken depends on what was asked:

    boxes     label <loc> × 4, and more boxes of the same label behind
    quads     label <loc> × 8: the corners of a piece of text
    polygons  <loc> <loc> … : x and y by turns; `<sep>` parts polygons of one object, `<poly>` … `</poly>` objects

Models break it when they are cut off or guess, so reading never fails: what is whole becomes an object, and what is not
becomes a sentence.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

from mmcli.decode.locations import Box, Loc, is_empty
from mmcli.decode.objects import DecodeText, Parsed, ParsedObject, PointGrammar, parsed
from mmcli.types import Token

BINS = 1000
BOX, QUAD, CORNERS = 4, 8, 3  # integers of a box and of a quad; points that a polygon has at least
RUN = 4  # marks that stand together at least, where they are polygons

Kind = Literal["boxes", "quads", "polygons", "boxes or polygons"]


@dataclass(frozen=True)
class QuantisedGrammar(PointGrammar):
    """This grammar, with the tokenizer's ids of its tokens."""

    loc_start: int
    separator: int  # <sep>
    begin: int  # <poly>
    end: int  # </poly>
    kind: Kind = "boxes"
    labelled: bool = True  # whether what has no label is left out
    unnamed: frozenset[str] = frozenset()  # labels of what is left out: words that name nothing

    @property
    def tokens(self) -> dict[str, tuple[int, int]]:
        """As `ObjectGrammar.tokens`."""
        return {"<loc_0> … <loc_999>": (self.loc_start, self.loc_start + BINS - 1)}

    def location(self, id: int) -> int | None:
        """N of the token <loc_N>, or None for any other token."""
        return id - self.loc_start if 0 <= id - self.loc_start < BINS else None

    def box(self, loc: Loc, width: int, height: int, divisor: int | None = None) -> Box:
        """As `ObjectGrammar.box`: `loc` is x0, y0, x1, y1."""
        x0, y0, x1, y1 = self.points(loc, width, height)
        return x0, y0, x1, y1

    def points(self, written: Sequence[int], width: int, height: int) -> tuple[float, ...]:
        """As `PointGrammar.points`."""
        sides = (width, height) * (len(written) // 2)
        return tuple((value + 0.5) * side / BINS for value, side in zip(written, sides, strict=True))

    def parse(self, tokens: Sequence[Token], decode_text: DecodeText, *, masks: bool = False) -> Parsed:
        """As `ObjectGrammar.parse`."""
        kind = self.kind
        if kind == "boxes or polygons":
            kind = "polygons" if any(token.id == self.begin for token in tokens) else "boxes"
        reader = _Reader(replace(self, kind=kind), decode_text)
        reader.read(tokens)
        return parsed(reader.objects, reader.problems, tokens, decode_text)

    def is_mark(self, id: int) -> bool:
        """Whether a token belongs to places, not to a text; between boxes and quads only locations do."""
        others = (self.separator, self.begin, self.end) if self.kind == "polygons" else ()
        return self.location(id) is not None or id in others


class _Reader:
    """One reading of an answer."""

    def __init__(self, grammar: QuantisedGrammar, decode_text: DecodeText):
        self.grammar, self.decode_text = grammar, decode_text
        self.objects: list[ParsedObject] = []
        self.problems: Counter[str] = Counter()

    def read(self, tokens: Sequence[Token]) -> None:
        """Take the runs of marks one after another, each with the text in front of it."""
        take = {"boxes": self._boxes, "quads": self._quads, "polygons": self._polygons}[self.grammar.kind]
        before: list[Token] = []
        for marks, run in groupby(tokens, lambda token: self.grammar.is_mark(token.id)):
            own = list(run)
            if marks:
                take(before, own)
            before = [] if marks else own

    def _label(self, before: list[Token]) -> str | None:
        """The words in front of places, behind the last "<"; None where there are none, or a line break among them."""
        if not self.grammar.labelled:
            return ""
        text = self.decode_text([token.id for token in before]).rpartition("<")[2]
        words = text.lstrip()
        return words.strip() if text and "\n" not in words else None

    def _boxes(self, before: list[Token], run: list[Token]) -> None:
        label = self._label(before)
        name = f'"{label}"' if label else "an object"
        whole, rest = divmod(len(run), BOX)
        if not whole:
            self.problems[f"{name} has {len(run)} of {BOX} coordinates"] += 1
            return
        if label is None:
            self.problems["a box has no label" if whole == 1 else f"{whole} boxes have no label"] += 1
            return
        if label in self.grammar.unnamed:
            return
        if rest:
            self.problems[f"{name} has {_amount(rest)} behind its last box"] += 1
        for first in range(0, whole * BOX, BOX):
            own = run[first : first + BOX]
            loc = self._bins(own)
            if is_empty(loc):
                self.problems[f"the box of {name} is empty"] += 1
                continue
            self._add(label, loc, [*before, *own])

    def _quads(self, before: list[Token], run: list[Token]) -> None:
        text = self.decode_text([token.id for token in before])
        text = text.rpartition("\n")[2]
        label = text.strip()
        if len(run) < QUAD:
            self.problems[f'"{label}" has {len(run)} of {QUAD} coordinates'] += 1
            return
        if not text:
            self.problems["the corners of an object have no text"] += 1
            return
        if len(run) > QUAD:
            self.problems[f'"{label}" has {len(run)} coordinates instead of {QUAD}'] += 1
        own = run[:QUAD]
        quad = self._bins(own)
        self._add(label, _around(quad), [*before, *own], quad=quad)

    def _polygons(self, before: list[Token], run: list[Token]) -> None:
        grammar, label = self.grammar, self._label(before)
        if label is None:
            self.problems["an outline has no label"] += 1
            return
        if len(run) < RUN:
            self.problems["an outline breaks off at once"] += 1
            return
        parts = _objects(run, grammar)
        if not parts:
            self.problems["an outline ends before it begins"] += 1
        for part in parts:
            polygons = []
            for points in _outlines(part, grammar):
                if len(points) % 2:
                    self.problems["an outline has an odd number of coordinates; the last one is left out"] += 1
                bins = self._bins(points[: len(points) // 2 * 2])
                if len(bins) < 2 * CORNERS:
                    self.problems[f"an outline has {len(bins) // 2} of {CORNERS} points"] += 1
                else:
                    polygons.append(bins)
            if polygons:
                around = _around([value for polygon in polygons for value in polygon])
                self._add(label, around, [*before, *part], polygons=tuple(polygons))

    def _bins(self, run: Sequence[Token]) -> tuple[int, ...]:
        return tuple(token.id - self.grammar.loc_start for token in run)

    def _add(
        self,
        label: str,
        loc: Loc,
        own: list[Token],
        quad: tuple[int, ...] | None = None,
        polygons: tuple[tuple[int, ...], ...] = (),
    ) -> None:
        self.objects.append(ParsedObject.written(label, loc, own, quad=quad, polygons=polygons))


def _amount(count: int) -> str:
    return "1 coordinate" if count == 1 else f"{count} coordinates"


def _objects(run: list[Token], grammar: QuantisedGrammar) -> list[list[Token]]:
    """The marks of each object: between `<poly>` and the next `</poly>`, or all of them where no such pair stands."""
    if not any(token.id == grammar.begin for token in run) or not any(token.id == grammar.end for token in run):
        return [run]
    found: list[list[Token]] = []
    current: list[Token] | None = None
    for token in run:
        if current is None:
            current = [] if token.id == grammar.begin else None
        elif token.id == grammar.end:
            found.append(current)
            current = None
        else:
            current.append(token)
    return found


def _outlines(part: list[Token], grammar: QuantisedGrammar) -> list[list[Token]]:
    """The locations of each polygon: those that a separator or the end of the object stands behind."""
    found: list[list[Token]] = []
    current: list[Token] = []
    for token in part:
        if grammar.location(token.id) is not None:
            current.append(token)
            continue
        if current and token.id == grammar.separator:
            found.append(current)
        current = []
    return [*found, current] if current else found


def _around(points: Sequence[int]) -> Loc:
    """The box that holds all points."""
    return min(points[::2]), min(points[1::2]), max(points[::2]), max(points[1::2])
