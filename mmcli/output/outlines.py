"""The outline of a mask as one polygon: for layouts that hold points and no masks."""

from collections import defaultdict

import numpy as np

from mmcli.rle import Mask

Point = tuple[int, int]

TOLERANCE = 0.75  # pixels that a simplified outline may lie off the mask's edges


def outline(mask: Mask) -> list[Point]:
    """The corners x, y of a polygon around the mask, in pixels of the image; [] for an empty mask.

    Holes are filled. Several parts become one polygon, joined by lines that are gone both ways, as Ultralytics joins
    COCO's parts.
    """
    loops = [simplified(loop) for loop in _loops(mask.pixels) if _area(loop) > 0]
    loops.sort(key=_area, reverse=True)
    points: list[Point] = []
    for loop in loops:
        points += [*loop, loop[0]] if len(loops) > 1 else loop
    for loop in reversed(loops[1:-1]):  # back the way it came
        points.append(loop[0])
    return points


def _loops(pixels: np.ndarray) -> list[list[Point]]:
    """The closed edges between inside and outside; around a part they run clockwise as displayed, around a hole not."""
    wide = np.pad(pixels, 1)
    follow: dict[Point, list[Point]] = defaultdict(list)  # where the edges that begin at a corner end
    for down, right, start, end in _SIDES:
        edge = wide[1:-1, 1:-1] & ~np.roll(wide, (-down, -right), (0, 1))[1:-1, 1:-1]
        for y, x in np.argwhere(edge).tolist():
            follow[x + start[0], y + start[1]].append((x + end[0], y + end[1]))
    loops = []
    for first, ends in list(follow.items()):
        while ends:
            here, to, loop = first, ends[0], []
            while to in follow[here]:
                follow[here].remove(to)
                loop.append(here)
                ways = follow[to]
                # Where two parts touch with their corners the edge turns right: they stay apart.
                ahead = ways[0] if len(ways) == 1 else next((w for w in ways if _turns_right(here, to, w)), here)
                here, to = to, ahead
            loops.append(_straightened(loop))
    return loops


# A pixel's sides: where the neighbour lies that must be outside, and the corners from and to which the edge runs.
_SIDES = (
    (-1, 0, (0, 0), (1, 0)),
    (0, 1, (1, 0), (1, 1)),
    (1, 0, (1, 1), (0, 1)),
    (0, -1, (0, 1), (0, 0)),
)


def _turns_right(one: Point, two: Point, three: Point) -> bool:
    return (two[0] - one[0]) * (three[1] - two[1]) > (two[1] - one[1]) * (three[0] - two[0])


def _straightened(loop: list[Point]) -> list[Point]:
    """A closed line without the corners at which it goes straight on."""
    kept = []
    for i, (x, y) in enumerate(loop):
        (bx, by), (nx, ny) = loop[i - 1], loop[(i + 1) % len(loop)]
        if (x - bx) * (ny - y) != (y - by) * (nx - x):
            kept.append((x, y))
    return kept


def _area(loop: list[Point]) -> float:
    """Twice the area inside a closed line; negative where it runs the other way."""
    xs, ys = np.array(loop or [(0, 0)]).T
    return float(xs @ np.roll(ys, -1) - ys @ np.roll(xs, -1))


def simplified(loop: list[Point], tolerance: float = TOLERANCE) -> list[Point]:
    """A closed line with as few of its corners as keep within `tolerance` (Ramer 1972, Douglas and Peucker 1973)."""
    if len(loop) < 5:
        return loop
    points = np.array(loop, dtype=float)
    far = int(np.argmax(((points - points[0]) ** 2).sum(axis=1)))
    closed = np.concatenate([points, points[:1]])
    keep = np.zeros(len(closed), dtype=bool)
    keep[[0, far, len(loop)]] = True
    spans = [(0, far), (far, len(loop))]
    while spans:
        begin, end = spans.pop()
        if end - begin < 2:
            continue
        between, (ax, ay), (bx, by) = closed[begin + 1 : end], closed[begin], closed[end]
        length = max(float(np.hypot(bx - ax, by - ay)), 1e-9)
        away = np.abs((bx - ax) * (between[:, 1] - ay) - (by - ay) * (between[:, 0] - ax)) / length
        worst = int(np.argmax(away))
        if away[worst] > tolerance:
            middle = begin + 1 + worst
            keep[middle] = True
            spans += [(begin, middle), (middle, end)]
    kept = [loop[i] for i in np.flatnonzero(keep[:-1])]
    return kept if len(kept) > 2 else loop
