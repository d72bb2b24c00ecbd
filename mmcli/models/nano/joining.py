"""One answer from two: boxes that the decoder wrote, boxes that the detector proposes, and how likely each is right.

A written box is moved onto the detection it overlaps most; detections that were not written are candidates too; of
candidates that nearly coincide the likelier one stays. How likely one is follows from a logistic regression on what
decoder and detector thought (`training.recipes.nano.calibrate` fits it on images that were held out; the coefficients
are the checkpoint's `finding`), so it holds for whatever was asked, and in `detect` as in `segment`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mmcli.boxes import overlap
from mmcli.decode.locations import Loc
from mmcli.decode.objects import ParsedObject

SAME = 0.5  # overlap from which on a written box and a detection are of one object
CROWDED = 0.6  # … from which on two detections are
DOUBLE = 0.5  # … from which on two candidates are
LEAST_LOGIT, LEAST_CLASSIFIED = -4.0, -3.0  # detections of which both logits are below are never right
BOTH, DETECTOR, DECODER, UNSEEN = "both", "detector", "decoder", "unseen"
KINDS = (BOTH, DETECTOR, DECODER, UNSEEN)
# 1, detection, best detection of the label, best other class there, presence, score of what was written, the
# proposal classifier's logit of the detection, and its logit of the label being in the image.
FEATURES = 8
UNCLASSIFIED = -8.0  # of detections that were not proposed to the decoder


@dataclass(frozen=True)
class Detection:
    """One of the detector's boxes for the class that was asked for."""

    loc: Loc
    logit: float
    other: float  # the largest logit of another class at the same place
    classified: float = UNCLASSIFIED  # the proposal classifier's logit of the class for the proposal there


@dataclass(frozen=True)
class Candidate:
    """A box that may be in the answer."""

    loc: Loc
    kind: str  # BOTH, DETECTOR, DECODER, or UNSEEN: the decoder's, of a class that the detector does not know
    features: tuple[float, ...]
    score: float  # mean log-probability of what the decoder wrote; NaN where it wrote nothing
    probability: float = 0.0

    @property
    def found_by(self) -> str:
        return DECODER if self.kind == UNSEEN else self.kind


@dataclass(frozen=True)
class Calibration:
    """Coefficients of FEATURES for each kind of candidate, and the probabilities from which on one is in the answer."""

    least: float  # for the likeliest box of a label: whether any is there at all
    further: float  # for the others, where it is
    both: tuple[float, ...]
    detector: tuple[float, ...]
    decoder: tuple[float, ...]
    unseen: tuple[float, ...]

    def probability(self, candidate: Candidate) -> float:
        weights = getattr(self, candidate.kind)
        logit = sum(weight * feature for weight, feature in zip(weights, candidate.features, strict=True))
        return 0.0 if math.isnan(logit) else 1 / (1 + math.exp(-_within(30.0, logit)))


# As `training.recipes.nano.calibrate` fitted it to the bundled weights; a configuration may have its own.
CALIBRATION = Calibration(
    least=0.113,
    further=0.057,
    both=(2.0828, 1.9802, -0.4817, 0.3619, 0.1499, 0.1269, 0.0, 0.0),
    detector=(0.4858, 2.4977, -0.3662, -0.22, -0.0037, 0.0, 0.0, 0.0),
    decoder=(-7.1239, 0.0, -0.1829, 0.0, 0.7498, 0.6889, 0.0, 0.0),
    unseen=(4.7697, 0.0, 0.0, 0.0, 0.2423, 3.0622, 0.0, 0.0),
)


def candidates(
    written: Sequence[ParsedObject], presence: float, detections: Sequence[Detection] | None, there: float = 0.0
) -> list[Candidate]:
    """All boxes that may be right. `presence` is the decoder's log-odds that the label is there at all and `there` the
    proposal classifier's; `detections` are the best of the label first, None where the detector does not know it."""
    if detections is None:
        return [Candidate(o.loc, UNSEEN, _features(presence=presence, score=o.score), o.score) for o in written]
    kept: list[Detection] = []
    for one in detections:
        likely = one.logit > LEAST_LOGIT or one.classified > LEAST_CLASSIFIED
        if likely and all(overlap(one.loc, other.loc) < CROWDED for other in kept):
            kept.append(one)
    best = kept[0].logit if kept else LEAST_LOGIT
    scores: dict[int, float] = {}  # of detections that were written
    found = []
    for o in sorted(written, key=lambda o: -o.score):
        near = max(range(len(kept)), key=lambda i: overlap(o.loc, kept[i].loc), default=None)
        if near is not None and overlap(o.loc, kept[near].loc) > SAME:
            scores.setdefault(near, o.score)
        else:
            found.append(Candidate(o.loc, DECODER, _features(0.0, best, 0.0, presence, o.score, 0.0, there), o.score))
    for i, one in enumerate(kept):
        score = scores.get(i, math.nan)
        kind = DETECTOR if math.isnan(score) else BOTH
        own_score = 0.0 if kind == DETECTOR else score
        features = _features(one.logit, best, one.other, presence, own_score, one.classified, there)
        found.append(Candidate(one.loc, kind, features, score))
    return found


def join(found: Sequence[Candidate], calibration: Calibration, least: float | None = None) -> list[Candidate]:
    """The candidates with a probability of at least `least` (None: as calibrated), the likeliest first, none twice."""
    first, further = (calibration.least, calibration.further) if least is None else (least, least)
    rated = [replace(one, probability=calibration.probability(one)) for one in found]
    kept: list[Candidate] = []
    for one in sorted(rated, key=lambda one: -one.probability):
        likely = one.probability >= (further if kept else first)
        if likely and all(overlap(one.loc, other.loc) < DOUBLE for other in kept):
            kept.append(one)
    return kept


def _features(
    own: float = 0.0,
    best: float = 0.0,
    other: float = 0.0,
    presence: float = 0.0,
    score: float = 0.0,
    classified: float = 0.0,
    there: float = 0.0,
) -> tuple[float, ...]:
    return (1.0, own, best, *(_within(8.0, value) for value in (other, presence, score, classified, there)))


def _within(most: float, value: float) -> float:
    """A number no farther from 0 than `most`; NaN stays what it is."""
    return value if math.isnan(value) else max(-most, min(most, value))
