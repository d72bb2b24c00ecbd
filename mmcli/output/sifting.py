"""Which of the objects in an answer are kept: without near copies, and no more than are wanted."""

from collections.abc import Sequence

from mmcli.boxes import overlap
from mmcli.output.schema import Object


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
