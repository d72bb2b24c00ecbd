"""All boxes that nano considers on annotated photographs, and how good they are: what evaluation and calibration share.

Each photograph is read once and asked for a list of objects. What comes back are the candidates before any threshold,
so that nano's answers at every threshold, and the detector's alone, are measured from one run.
"""

import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from zipfile import ZipFile

import numpy as np
from PIL import Image

from mmcli.decode.locations import overlap
from mmcli.decode.objects import ParsedObject
from mmcli.hub.resolve import resolve
from mmcli.models.load import load
from mmcli.models.loaded import Loaded
from mmcli.models.nano.finding import Asked, look, propose
from mmcli.models.nano.joining import BOTH, DETECTOR, Calibration, Candidate, join
from mmcli.training.recipes.nano.annotations import Photo

HIT = 0.5  # overlap from which on a box is right
BATCH = 8  # photographs read together
SCALE = 1023  # truth is kept in the units of locations


@dataclass
class Answered:
    """One object asked of one photograph: what was considered, and what is there, as y0 x0 y1 x1 in locations."""

    photo: str
    label: str
    candidates: list[Candidate]
    truth: list[tuple[float, ...]]


@dataclass(frozen=True)
class Source:
    """A model and the folder of photographs, named so that other processes can open them."""

    model: str
    data: Path
    device: str = "auto"
    dtype: str = "float32"


Questions = Sequence[tuple[Photo, Sequence[str]]]


def collect(source: Source, questions: Questions, jobs: int = 1) -> list[Answered]:
    """Ask about each photograph all its labels, in `jobs` processes."""
    parts = [questions[start : start + BATCH] for start in range(0, len(questions), BATCH)]
    if jobs == 1:
        loaded = load(resolve(source.model, download=False), source.device, source.dtype)
        return list(chain.from_iterable(ask(loaded, source.data, part) for part in parts))
    # Spawned: a forked process cannot use the GPU of its parent.
    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_begin, initargs=(source,)) as pool:
        return list(chain.from_iterable(pool.map(_ask, parts)))


_source: Source  # of a process of the pool, and the model that it has loaded
_loaded: Loaded


def _begin(source: Source) -> None:
    global _source, _loaded
    _source, _loaded = source, load(resolve(source.model, download=False), source.device, source.dtype)


def _ask(part: Questions) -> list[Answered]:
    return ask(_loaded, _source.data, part)


def ask(loaded: Loaded, data: Path, questions: Questions) -> list[Answered]:
    images = [image(data, photo) for photo, _ in questions]
    asked = [Asked(i, label, label) for i, (_, labels) in enumerate(questions) for label in labels]
    propose(loaded, look(loaded, images), asked)
    return [
        Answered(photo.file, one.label, one.candidates, truth_of(photo, one.label))
        for one, photo in ((one, questions[one.image][0]) for one in asked)
    ]


def image(data: Path, photo: Photo) -> Image.Image:
    with ZipFile(data / photo.archive) as archive, archive.open(photo.file) as file:
        return Image.open(file).convert("RGB")


def truth_of(photo: Photo, label: str) -> list[tuple[float, ...]]:
    return [
        tuple(SCALE * edge for edge in (t.box[1], t.box[0], t.box[3], t.box[2]))
        for t in photo.objects
        if t.label == label and t.by_hand
    ]


def present_and_absent(photo: Photo, labels: Iterable[str], absent: int, rng: random.Random) -> list[str]:
    """Of `labels` those that the photograph has and of which every box is drawn, and some that it surely lacks."""
    there = {t.label for t in photo.objects if t.by_hand}
    present = [label for label in labels if label in there and label in photo.complete]
    lacking = [label for label in labels if label not in there and label in photo.absent]
    return present + rng.sample(lacking, min(absent, len(lacking)))


def hits(boxes: Sequence[Candidate | ParsedObject], truth: Sequence[Sequence[float]]) -> Iterator[bool]:
    """Whether each box is right, in their order; an object is found once."""
    free = list(truth)
    for box in boxes:
        over = [overlap(box.loc, real) for real in free]
        best = max(range(len(free)), key=over.__getitem__, default=-1)
        right = best >= 0 and over[best] >= HIT
        if right:
            del free[best]
        yield right


def average_precision(marks: Iterable[tuple[float, bool]], total: int) -> float:
    """All-point average precision of boxes given as (probability, whether right), for `total` objects."""
    right = [hit for _, hit in sorted(marks, key=lambda mark: -mark[0])]
    if not right or not total:
        return 0.0
    recall = np.cumsum(right) / total
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(np.concatenate(([0.0], recall))) * precision))


def summary(answers: Iterable[tuple[Answered, Sequence[Candidate | ParsedObject]]]) -> dict:
    """Mean AP50 over the classes, recall over all boxes, share of prompts for absent objects that gave a box."""
    marks: dict[str, list] = defaultdict(list)
    total: Counter[str] = Counter()
    found = absent = false = 0
    for one, boxes in answers:
        right = list(hits(boxes, one.truth))
        marks[one.label] += [(box.probability, hit) for box, hit in zip(boxes, right, strict=True)]
        total[one.label] += len(one.truth)
        found += sum(right)
        absent += not one.truth
        false += not one.truth and bool(boxes)
    classes = {label: average_precision(marks[label], n) for label, n in total.items() if n}
    return {
        "mean ap50": round(float(np.mean(list(classes.values()))), 4),
        "recall": round(found / max(sum(total.values()), 1), 4),
        "boxes right": round(found / max(sum(map(len, marks.values())), 1), 4),
        "absent with boxes": round(false / max(absent, 1), 4),
        "classes": len(classes),
        "boxes": sum(total.values()),
        "absent": absent,
        "by class": {label: round(value, 3) for label, value in classes.items()},
    }


def joined(answers: Sequence[Answered], calibration: Calibration, least: float | None = None):
    """Nano's answers at a threshold."""
    return [(one, join(one.candidates, calibration, least)) for one in answers]


def detector_alone(answers: Sequence[Answered], least: float):
    """The answers of the detector by itself: its own scores, its own boxes."""
    results = []
    for one in answers:
        own = [
            replace(box, probability=1 / (1 + math.exp(-box.features[1])))
            for box in one.candidates
            if box.kind in (BOTH, DETECTOR)
        ]
        results.append((one, sorted((b for b in own if b.probability >= least), key=lambda b: -b.probability)))
    return results


def decoder_alone(answers: Sequence[Answered]):
    """The answers of the decoder by itself: all that it wrote, where the nearest detection stands if one is near."""
    results = []
    for one in answers:
        own = [replace(box, probability=math.exp(box.score)) for box in one.candidates if not math.isnan(box.score)]
        results.append((one, sorted(own, key=lambda b: -b.probability)))
    return results
