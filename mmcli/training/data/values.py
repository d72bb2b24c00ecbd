"""Values of a row, each checked: texts, numbers, labels, boxes and outlines. What is wrong is an `Unusable`."""

import math
import re
from collections.abc import Sequence
from typing import Any

from mmcli.boxes import inside
from mmcli.example import Box, Polygons, RunLengths
from mmcli.hub.fields import shown
from mmcli.rle import Mask, fills
from mmcli.training.data.rows import Unusable

LONGEST_TEXT = 200_000  # characters
LONGEST_LABEL = 200
MOST_POINTS = 100_000  # of one outline
SLACK = 0.02  # shares of a side that a box may lie outside of its image: labelling tools round, and overshoot
LARGEST_SIDE = 1_000_000  # pixels

_NO_TEXT = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


def text(value: Any, what: str) -> str:
    """A text with something in it."""
    if value is None:
        raise Unusable(f"it has no {what}")
    if not isinstance(value, str):
        raise Unusable(f"its {what} is {shown(value)} and not a text")
    if len(value) > LONGEST_TEXT:
        raise Unusable(f"its {what} has more than {LONGEST_TEXT:,} characters")
    if _NO_TEXT.search(value):
        raise Unusable(f"its {what} is not in UTF-8")
    if not value.strip():
        raise Unusable(f"its {what} is empty")
    return value


def label(value: Any) -> str:
    """What an object is: on one line, and without the sign that separates objects."""
    name = text(value, "label").strip()
    if len(name) > LONGEST_LABEL or _CONTROL.search(name):
        raise Unusable(f"the label {shown(name)} is no short line of text")
    if ";" in name or re.search("<[a-z]+[0-9]+>", name):
        raise Unusable(f"the label {shown(name)} holds what models write between objects")
    return name


def number(value: Any, what: str) -> float:
    """A number, also one that stands as text, as in a table."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise Unusable(f"{what} is {shown(value)} and not a number") from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e12 < value < 1e12:
        raise Unusable(f"{what} is {shown(value)} and not a number")
    return float(value)


def numbers(value: Any, what: str, count: int | None = None, most: int = MOST_POINTS) -> tuple[float, ...]:
    """A list of numbers, perhaps of exactly `count`."""
    if not isinstance(value, list | tuple) or (count is not None and len(value) != count) or len(value) > most:
        wanted = f"a list of {count} numbers" if count is not None else f"a list of at most {most:,} numbers"
        raise Unusable(f"{what} is {shown(value)} and not {wanted}")
    return tuple(number(one, what) for one in value)


def side(value: Any, what: str) -> int:
    """The width or the height of an image, in pixels."""
    found = number(value, f"its {what}")
    if found != int(found) or not 0 < found < LARGEST_SIDE:
        raise Unusable(f"its {what} is {shown(value)} and not a number of pixels")
    return int(found)


def size(row: dict[str, Any]) -> tuple[int, int]:
    """The width and the height that a row states."""
    return side(row.get("width"), "width"), side(row.get("height"), "height")


def box(edges: Sequence[float], width: float, height: float, name: str) -> Box:
    """Edges x0, y0, x1, y1 in an image of that size → in shares of its sides, with the little cut off that overshoots.

    `name` is the object's label. Raises Unusable for a box that is empty or leaves the image.
    """
    x0, y0, x1, y1 = edges[0] / width, edges[1] / height, edges[2] / width, edges[3] / height
    if not all(map(math.isfinite, (x0, y0, x1, y1))):
        raise Unusable(f'the box of "{name}" holds what is no number')
    if x1 <= x0 or y1 <= y0:
        raise Unusable(f'the box of "{name}" is empty')
    kept = inside((x0, y0, x1, y1), 1, 1)
    if kept is None or max(-x0, -y0, x1 - 1, y1 - 1) > SLACK:
        raise Unusable(f'the box of "{name}" lies outside the picture')
    return kept


def polygons(outlines: Any, width: float, height: float, name: str) -> Polygons:
    """Outlines, each x and y by turns in an image of that size. Raises Unusable."""
    if not isinstance(outlines, list | tuple) or not outlines:
        raise Unusable(f'the outline of "{name}" is {shown(outlines)} and not a list of polygons')
    found = []
    for one in outlines:
        points = numbers(one, f'the outline of "{name}"')
        if len(points) < 6 or len(points) % 2:
            raise Unusable(f'the outline of "{name}" has {len(points)} numbers, which is no polygon')
        shares = [value / (height if i % 2 else width) for i, value in enumerate(points)]
        if min(shares) < -SLACK or max(shares) > 1 + SLACK:
            raise Unusable(f'the outline of "{name}" lies outside the picture')
        found.append(tuple(min(max(share, 0.0), 1.0) for share in shares))
    return Polygons(tuple(found))


def run_lengths(mask: Any, width: int, height: int, name: str) -> RunLengths:
    """COCO's run-length encoding of a mask of that size. Raises Unusable for one that does not fill it."""
    if not isinstance(mask, dict) or list(mask.get("size") or ()) != [height, width]:
        raise Unusable(f'the mask of "{name}" is not of the picture\'s size, {width} × {height}')
    counts, full = mask.get("counts"), width * height
    if isinstance(counts, str):
        if fills(Mask((height, width), counts)):
            return RunLengths(counts, height, width)
    elif isinstance(counts, list) and all(type(one) is int and one >= 0 for one in counts) and sum(counts) == full:
        return RunLengths(tuple(counts), height, width)
    raise Unusable(f'the runs of the mask of "{name}" do not fill {width} × {height} pixels')


def extent(found: Polygons) -> Box:
    """The box around outlines."""
    xs = [x for outline in found.outlines for x in outline[::2]]
    ys = [y for outline in found.outlines for y in outline[1::2]]
    return min(xs), min(ys), max(xs), max(ys)
