"""Boxes as four location tokens, in the convention of PaliGemma.

A location is a coordinate's share of the image's side in 1/1023, in the order y0 x0 y1 x1
(google-research/big_vision `pp/proj/paligemma/segmentation.py`); boxes here are (x0, y0, x1, y1) in pixels.
"""

from collections.abc import Sequence

from mmcli.boxes import overlap as overlap
from mmcli.decode import LOCATIONS

DIVISOR = LOCATIONS - 1  # 0 is the first edge of the image and 1023 the last, as the encoder of big_vision has it
DIVISORS = (DIVISOR, LOCATIONS)  # the conventions that there are, the usual one first

Loc = tuple[int, ...]  # a place in the integers of a grammar, in its own order; here a box's y0, x0, y1, x1
Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels


def decode_box(loc: Loc, width: int, height: int, divisor: int = DIVISOR) -> Box:
    """Locations → box in pixels of an image of that size.

    `divisor=1024` is the convention of other decoders; with it no box reaches the right or the lower edge.
    Raises ValueError for a location outside 0 … 1023.
    """
    if not all(0 <= value < LOCATIONS for value in loc):
        raise ValueError(f"locations must lie in 0 … {LOCATIONS - 1}, not {loc}")
    y0, x0, y1, x1 = loc
    return x0 * width / divisor, y0 * height / divisor, x1 * width / divisor, y1 * height / divisor


def encode_box(box: Box, width: int, height: int, divisor: int = DIVISOR) -> Loc:
    """Box in pixels → locations; what lies outside the image is moved to its edge."""

    def location(value: float, side: int) -> int:
        return round(min(max(value / side * divisor, 0), LOCATIONS - 1))

    x0, y0, x1, y1 = box
    return location(y0, height), location(x0, width), location(y1, height), location(x1, width)


def is_empty(loc: Sequence[int]) -> bool:
    """Whether a box has no extent: x0, y0, x1, y1, or y first both times."""
    return loc[2] <= loc[0] or loc[3] <= loc[1]


def not_empty(loc: Loc) -> Loc:
    """Locations of a box that holds one cell at least: one that is thinner is made as wide as that."""

    def edges(first: int, last: int) -> tuple[int, int]:
        return (first, last) if first < last else (min(first, LOCATIONS - 2), min(first, LOCATIONS - 2) + 1)

    (y0, y1), (x0, x1) = edges(loc[0], loc[2]), edges(loc[1], loc[3])
    return y0, x0, y1, x1


def pixel_box(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """The whole pixels (x0, y0, x1, y1) of a box, last edges excluded: inside the image and at least one pixel.

    Masks are pasted and crops are cut here. A box thinner than a pixel becomes the pixel that holds its middle.
    """

    def edges(first: float, last: float, side: int) -> tuple[int, int]:
        start, stop = (min(max(round(value), 0), side) for value in (first, last))
        if start < stop:
            return start, stop
        middle = min(max(int((first + last) / 2), 0), side - 1)
        return middle, middle + 1

    (x0, x1), (y0, y1) = edges(box[0], box[2], width), edges(box[1], box[3], height)
    return x0, y0, x1, y1
