"""Which of the objects in an answer are kept: without near copies, and no more than are wanted."""

from collections.abc import Sequence

from mmcli.output.schema import Object

Box = tuple[float, float, float, float]


def sift(objects: Sequence[Object], *, nms: float | None = None, most: int | None = None) -> list[Object]:
    """Those that are kept, in their order.

    `nms`: of two objects of one label whose boxes overlap by more than this share (intersection over union, 0 to 1) the
    better one is kept (greedy non-maximum suppression). `most`: so many of the best, whatever their labels. The better
    one is the more probable, else the one whose tokens were likelier, else the one that was written first.
    """
    ranked = sorted(range(len(objects)), key=lambda i: _rank(objects[i]), reverse=True)  # sorting keeps ties' order
    kept: list[int] = []
    for i in ranked:
        if most is not None and len(kept) == most:
            break
        rivals = (objects[j] for j in kept if objects[j].label == objects[i].label)
        if nms is None or all(overlap(objects[i].box, other.box) <= nms for other in rivals):
            kept.append(i)
    return [objects[i] for i in sorted(kept)]


def _rank(found: Object) -> tuple[float, float]:
    low = float("-inf")
    return (
        low if found.probability is None else found.probability,
        low if found.score is None else found.score,
    )


def overlap(one: Box, other: Box) -> float:
    """Intersection over union of two boxes; 0 where neither has an area."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    inside = max(width, 0.0) * max(height, 0.0)
    whole = _area(one) + _area(other) - inside
    return inside / whole if whole > 0 else 0.0


def _area(box: Box) -> float:
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)
