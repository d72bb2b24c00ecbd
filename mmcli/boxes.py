"""Boxes as four edges, in whatever unit: two near ones, then the two far ones (x0, y0, x1, y1, or y0, x0, y1, x1)."""

from collections.abc import Sequence


def area(box: Sequence[float]) -> float:
    """The area of a box whose edges are in order."""
    return (box[2] - box[0]) * (box[3] - box[1])


def overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union of two boxes with their edges in the same order."""
    first = min(one[2], other[2]) - max(one[0], other[0])
    second = min(one[3], other[3]) - max(one[1], other[1])
    if first <= 0 or second <= 0:
        return 0.0
    shared = first * second
    return shared / (area(one) + area(other) - shared)


def inside(box: Sequence[float], width: int, height: int) -> tuple[float, float, float, float] | None:
    """The part of a box (x0, y0, x1, y1) that lies in an image of that size; None where none does."""
    x0, x1 = (min(max(edge, 0.0), width) for edge in (box[0], box[2]))
    y0, y1 = (min(max(edge, 0.0), height) for edge in (box[1], box[3]))
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None
