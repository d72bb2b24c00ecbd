"""Fitting how likely a box is right, on answers whose odds are known."""

import json
import math
import random
from dataclasses import asdict

import pytest

from mmcli.models.nano.joining import Candidate, join
from mmcli.training.recipes.nano.boxes import Answered, decoder_alone, detector_alone, joined, summary
from mmcli.training.recipes.nano.calibrate import fit, least_for, reliability, with_limits

BOX = (100, 100, 300, 300)


@pytest.fixture(scope="module")
def answers():
    """Detections that are right with the probability that their logit, halved, stands for."""
    rng = random.Random(0)
    made = []
    for i in range(3000):
        logit = rng.uniform(-4, 4)
        right = rng.random() < 1 / (1 + 2.718281828 ** -(logit / 2))
        box = Candidate(BOX, "detector", (1.0, logit, logit, -8.0, 0.0, 0.0, 0.0, 0.0), 0.0)
        made.append(Answered(f"{i}.webp", "cat", [box], [BOX] if right else []))
    return made


def test_probabilities_become_what_they_say(answers):
    calibration = fit(answers)
    table = [(name, count, right) for name, count, right in reliability(answers, calibration) if count > 100]
    assert len(table) > 5
    assert all(abs(right - (float(name[:3]) + 0.05)) < 0.08 for name, _, right in table)


def test_the_limit_leaves_the_share_of_false_boxes_that_was_allowed(answers):
    calibration = with_limits(answers, fit(answers), 0.1)
    false = summary(joined(answers, calibration))["absent with boxes"]
    assert 0.05 < false <= 0.1
    assert least_for(answers, calibration, 0.02) > least_for(answers, calibration, 0.1) > calibration.further


def test_the_detector_alone_goes_by_its_own_scores(answers):
    for one, boxes in detector_alone(answers[:50], 0.5):
        assert len(boxes) == (one.candidates[0].features[1] >= 0)


def test_the_decoder_alone_has_what_it_wrote_and_no_more():
    features = (1.0, 2.0, 2.0, -8.0, 0.0, 0.0, 0.0, 0.0)
    boxes = [Candidate(BOX, kind, features, score) for kind, score in
             (("decoder", -2.0), ("both", -0.5), ("detector", math.nan), ("unseen", -1.0))]  # fmt: skip
    [(_, kept)] = decoder_alone([Answered("a.webp", "cat", boxes, [BOX])])
    assert [box.kind for box in kept] == ["both", "unseen", "decoder"]
    assert kept[0].probability == pytest.approx(math.exp(-0.5))


def test_a_calibration_survives_being_written_down(answers):
    from mmcli.hub.resolve import resolve
    from mmcli.models.nano import NanoConfig

    calibration = fit(answers)
    raw = resolve("nano").config | json.loads(json.dumps({"finding": asdict(calibration)}))
    read = NanoConfig.from_json(raw).finding
    assert read == calibration
    assert join(answers[0].candidates, read, 0.0) == join(answers[0].candidates, calibration, 0.0)
