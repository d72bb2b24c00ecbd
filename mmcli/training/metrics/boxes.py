"""Average precision of boxes and masks by pycocotools, and how well masks fit."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmcli.boxes import area, overlap
from mmcli.rle import Mask
from mmcli.training.metrics.library import library

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels
MOST = 100  # objects of an image that count, the surest first: COCO's own limit
FITTING = 0.5  # intersection over union from which on a box is where an object is


@dataclass(frozen=True)
class Marked:
    """One object in an image, as a person marked it (`score` 1) or a model found it."""

    label: str
    box: Box
    score: float = 1.0
    mask: Mask | None = None


@dataclass(frozen=True)
class Compared:
    """What was marked in an image, and what was found of the same labels."""

    width: int
    height: int
    truth: Sequence[Marked]
    found: Sequence[Marked]


def average_precision(images: Sequence[Compared], labels: Sequence[str], *, masks: bool = False) -> dict[str, float]:
    """COCO's AP (mean over overlaps of 0.5 to 0.95) and AP50, means over labels that are marked anywhere.

    {} where nothing is marked. Raises UsageError without pycocotools.
    """
    what = "AP of masks" if masks else "AP of boxes"
    coco = library("pycocotools.coco", what).COCO
    evaluation = library("pycocotools.cocoeval", what).COCOeval
    ids = {label: number for number, label in enumerate(labels, 1)}
    truth = [_annotations(i, one.truth, ids, masks) for i, one in enumerate(images, 1)]
    found = [_annotations(i, one.found, ids, masks) for i, one in enumerate(images, 1)]
    marked = [dict(entry, id=number) for number, entry in enumerate((e for own in truth for e in own), 1)]
    if not marked:
        return {}
    with contextlib.redirect_stdout(io.StringIO()):  # both print what they do
        base = coco()
        base.dataset = {
            "info": {},
            "images": [{"id": i, "width": one.width, "height": one.height} for i, one in enumerate(images, 1)],
            "annotations": marked,
            "categories": [{"id": id, "name": label} for label, id in ids.items()],
        }
        base.createIndex()
        guesses = [entry for own in found for entry in own]
        if not guesses:
            return {"AP50": 0.0, "AP": 0.0}
        done = evaluation(base, base.loadRes(guesses), "segm" if masks else "bbox")
        done.evaluate()
        done.accumulate()
    precision = done.eval["precision"][:, :, :, 0, 2]  # [overlaps, recalls, labels] of all sizes, `MOST` objects
    return {"AP50": _mean(precision[0]), "AP": _mean(precision)}


def _mean(precision: np.ndarray) -> float:
    """The mean over all that is defined: a label that is marked nowhere has −1."""
    known = precision[precision > -1]
    return float(known.mean()) if known.size else 0.0


def _annotations(image: int, objects: Sequence[Marked], ids: dict[str, int], masks: bool) -> list[dict[str, Any]]:
    entries = []
    for one in objects:
        if one.label not in ids or (masks and one.mask is None):
            continue
        x0, y0, x1, y1 = one.box
        entry: dict[str, Any] = {"image_id": image, "category_id": ids[one.label], "score": one.score, "iscrowd": 0}
        entry |= {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": area(one.box)}
        if masks and one.mask is not None:
            entry["segmentation"] = {"size": list(one.mask.size), "counts": one.mask.counts}
            entry["area"] = int(one.mask.pixels.sum())
        entries.append(entry)
    return entries


def mask_overlap(images: Sequence[Compared]) -> dict[str, float]:
    """Mean intersection over union of masks, over all that are marked: of one that was not found it is 0.

    Each is held against the surest object of its label that is found where it is and was not taken yet. {} where no
    mask is marked.
    """
    overlaps = []
    for one in images:
        left = sorted((other for other in one.found if other.mask is not None), key=lambda other: -other.score)
        for mark in one.truth:
            if mark.mask is None:
                continue
            own = [other for other in left if other.label == mark.label and overlap(other.box, mark.box) >= FITTING]
            if own:
                left.remove(own[0])
            overlaps.append(_overlap(mark.mask, own[0].mask) if own else 0.0)
    return {"mask IoU": float(np.mean(overlaps))} if overlaps else {}


def _overlap(one: Mask, other: Mask | None) -> float:
    assert other is not None
    first, second = one.pixels, other.pixels
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else 0.0
