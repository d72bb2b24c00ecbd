"""Fit how decoder and detector are weighed.

    python -m mmcli.training.recipes.nano.calibrate --data FOLDER --model nano

On training images that were held out every class that is boxed exhaustively is asked where it is, and others where
they are not. (Of objects that the detector does not know too few are held out: what the decoder writes of the others,
and the detector unasked, stands in for them.) A logistic regression of each kind of candidate gives its probability of
being right; `least` is the smallest probability at which no more than `--false` of the questions for absent objects get
a box; half of it is enough for the further boxes of an object that is there. Prints the `finding` of config.json, how
far the probabilities can be trusted, and what they reach here; then what counts as a trace of a class (`evidence`).
`--write` puts both into the model's config.json.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from mmcli.hub.resolve import resolve
from mmcli.models.load import load
from mmcli.models.nano.config import NanoConfig
from mmcli.models.nano.joining import (
    BOTH,
    CALIBRATION,
    DECODER,
    KINDS,
    UNSEEN,
    Calibration,
    Candidate,
    join,
)
from mmcli.models.nano.labels import COCO
from mmcli.training.recipes.nano import evidence
from mmcli.training.recipes.nano.annotations import ALL, Photo, read_photos, split_training
from mmcli.training.recipes.nano.arguments import parser_of
from mmcli.training.recipes.nano.boxes import (
    Answered,
    Source,
    collect,
    detector_alone,
    hits,
    joined,
    present_and_absent,
    summary,
)
from mmcli.training.recipes.nano.regression import logistic

ABSENT = 8  # objects asked of each image in vain
ROUNDS = 4  # which of two boxes of one object is the right one depends on what is being fitted


def questions(data: Path, objects: Sequence[str], seed: int) -> list[tuple[Photo, list[str]]]:
    """Held-out images with all that may be asked of them."""
    _, held_out = split_training(read_photos(data, ALL))
    rng = random.Random(seed)
    asked = [(photo, present_and_absent(photo, objects, ABSENT, rng)) for photo in held_out]
    return [(photo, labels) for photo, labels in asked if labels]


def fit(answers: Sequence[Answered]) -> Calibration:
    """The coefficients of every kind; `least` is that of before."""
    calibration = CALIBRATION
    for _ in range(ROUNDS):
        rows: dict[str, list[tuple[tuple[float, ...], bool]]] = {kind: [] for kind in KINDS}
        for one in answers:
            boxes = join(one.candidates, calibration, 0.0)
            for box, right in zip(boxes, hits(boxes, one.truth), strict=True):
                rows[box.kind].append((box.features, right))
                if box.kind in (BOTH, DECODER):
                    rows[UNSEEN].append(((1.0, 0.0, 0.0, 0.0, *box.features[4:]), right))
        weights = {kind: _regression(own, getattr(CALIBRATION, kind)) for kind, own in rows.items()}
        settings: dict[str, Any] = weights  # named by kind; the two floats stay
        calibration = replace(calibration, **settings)
    return calibration


def _regression(rows: list[tuple[tuple[float, ...], bool]], before: Sequence[float]) -> tuple[float, ...]:
    """Logistic regression; where there is next to nothing to learn from, what was before."""
    if len(rows) < 20:
        return tuple(before)
    weights = logistic(np.array([features for features, _ in rows]), np.array([float(right) for _, right in rows]))
    return tuple(round(float(w), 4) for w in weights)


def with_limits(answers: Sequence[Answered], calibration: Calibration, false: float) -> Calibration:
    """The limits by which no more than a share `false` of the absent objects get a box.

    For objects that the detector does not know the constant is lowered until the same limits do that.
    """
    known, others = ([one for one in answers if (one.label in COCO) is known] for known in (True, False))
    least = least_for(known, calibration, false)
    too_much = _log_odds(least_for(others, calibration, false)) - _log_odds(least)
    constant, *rest = calibration.unseen
    unseen = (round(constant - max(0.0, too_much), 4), *rest)
    return replace(calibration, least=least, further=round(least / 2, 3), unseen=unseen)


def _log_odds(p: float) -> float:
    return float(np.log(p / (1 - p)))


def least_for(answers: Sequence[Answered], calibration: Calibration, false: float) -> float:
    """The probability that no more than a share `false` of the questions for absent objects reach."""
    best = [_best(join(one.candidates, calibration, 0.0)) for one in answers if not one.truth]
    return round(float(np.quantile(best, 1 - false)) + 1e-3, 3) if best else calibration.least


def _best(boxes: Sequence[Candidate]) -> float:
    return boxes[0].probability if boxes else 0.0


def reliability(answers: Sequence[Answered], calibration: Calibration, bins: int = 10) -> list[tuple[str, int, float]]:
    """Of boxes of about the same probability how many there are, and the share that is right."""
    marks = []
    for one in answers:
        boxes = join(one.candidates, calibration, 0.0)
        marks += [(box.probability, right) for box, right in zip(boxes, hits(boxes, one.truth), strict=True)]
    table = []
    for i in range(bins):
        own = [right for p, right in marks if i / bins <= p < (i + 1) / bins or (p == 1 and i == bins - 1)]
        table.append((f"{i / bins:.1f}–{(i + 1) / bins:.1f}", len(own), round(float(np.mean(own)), 3) if own else 0.0))
    return table


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--false", type=float, default=0.02, help="share of absent objects that may get a box")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=1, help="use only every n-th picture")
    parser.add_argument("--write", action="store_true", help="put the result into the model's config.json")
    args = parser.parse_args()
    path = resolve(args.model, download=False).folder / "config.json"
    raw = json.loads(path.read_text("utf-8"))
    objects = NanoConfig.from_json(raw).things
    source = Source(args.model, args.data, args.device, args.dtype)
    answers = collect(source, questions(args.data, objects, args.seed)[:: args.every], args.jobs)
    calibration = fit(answers)
    known = [one for one in answers if one.label in COCO]
    calibration = with_limits(answers, calibration, args.false)
    names = sorted({one.photo for one in answers})
    for part, other in ((names[::2], names[1::2]), (names[1::2], names[::2])):
        fitted = fit([one for one in answers if one.photo in set(part)])
        print("reliability on the other half", reliability([one for one in answers if one.photo in set(other)], fitted))
    for least in (None, 0.1, 0.2, 0.3, 0.4, 0.5):
        print(f"nano at {least or 'its own limits'}", _short(summary(joined(known, calibration, least))))
    for least in (0.1, 0.2, 0.3, 0.4, 0.5):
        print(f"detector at {least}", _short(summary(detector_alone(known, least))))
    _, held_out = split_training(read_photos(args.data, ALL))
    whole = [photo for photo in held_out if photo.complete >= set(COCO)][:: args.every]
    loaded = load(resolve(args.model, download=False), args.device, args.dtype)
    found = {"finding": asdict(calibration), **evidence.choose(loaded, args.data, whole)}
    print(json.dumps(found))
    if args.write:
        path.write_text(json.dumps(raw | found) + "\n", "utf-8")


def _short(result: dict) -> dict:
    return {key: value for key, value in result.items() if key != "by class"}


if __name__ == "__main__":
    main()
