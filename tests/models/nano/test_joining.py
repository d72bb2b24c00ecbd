"""How boxes of the decoder and of the detector become one answer."""

import json
import math
from dataclasses import replace

import pytest

from mmcli.decode.objects import ParsedObject
from mmcli.errors import ModelError
from mmcli.hub.resolve import resolve
from mmcli.models.nano import NanoConfig
from mmcli.models.nano.joining import Calibration, Detection, candidates, join

PLAIN = Calibration(
    least=0.3,
    further=0.3,
    both=(0.5, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    detector=(0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    decoder=(-1.0, 0.0, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0),
    unseen=(0.0, 0.0, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0),
)
CAT = (100, 100, 500, 500)
NEARLY = (110, 105, 505, 490)  # overlaps CAT by 0.9
ELSEWHERE = (600, 600, 900, 900)


def wrote(loc, score=-1.0):
    return ParsedObject("cat", loc, None, score)


def joined(written, detections, presence=2.0, least=0.0):
    return join(candidates(written, presence, detections), PLAIN, least)


def test_a_written_box_moves_onto_the_detection_it_overlaps():
    [one] = joined([wrote(NEARLY)], [Detection(CAT, 2.0, -3.0)])
    assert (one.loc, one.found_by, one.score) == (CAT, "both", -1.0)


def test_a_sure_detection_that_was_not_written_is_added():
    found = joined([wrote(CAT)], [Detection(CAT, 2.0, -3.0), Detection(ELSEWHERE, 1.0, -3.0)])
    assert {(one.loc, one.found_by) for one in found} == {(CAT, "both"), (ELSEWHERE, "detector")}
    assert math.isnan(next(one.score for one in found if one.found_by == "detector"))


def test_a_written_box_that_the_detector_does_not_see_stays_as_it_is():
    [one] = joined([wrote(CAT)], [])
    assert (one.loc, one.found_by, one.kind) == (CAT, "decoder", "decoder")


def test_what_the_detector_does_not_know_is_the_decoders_alone():
    [one] = joined([wrote(CAT)], None)
    assert (one.loc, one.found_by, one.kind) == (CAT, "decoder", "unseen")


@pytest.mark.parametrize(
    ("written", "detections"),
    [
        ([wrote(CAT), wrote(NEARLY, -0.5)], []),
        ([], [Detection(CAT, 2.0, -3.0), Detection(NEARLY, 1.0, -3.0)]),
        ([wrote(CAT), wrote(NEARLY, -0.5)], [Detection(CAT, 2.0, -3.0), Detection(NEARLY, 1.0, -3.0)]),
    ],
)
def test_of_boxes_that_nearly_coincide_the_likelier_one_stays(written, detections):
    assert len(joined(written, detections)) == 1


@pytest.mark.parametrize(("right", "kinds"), [(340, ["both"]), (280, ["decoder", "detector"])])
def test_a_written_box_and_a_detection_are_of_one_thing_if_half_of_them_is_the_same(right, kinds):
    part = (100, 100, 500, right)  # of CAT: 0.6, 0.45
    assert [one.kind for one in candidates([wrote(part)], 2.0, [Detection(CAT, 2.0, -3.0)])] == kinds


@pytest.mark.parametrize(("right", "left"), [(380, 1), (320, 2)])
def test_of_detections_that_share_most_of_their_boxes_the_better_one_is_a_candidate(right, left):
    detections = [Detection(CAT, 2.0, -3.0), Detection((100, 100, 500, right), 1.0, -3.0)]  # 0.7, 0.55 of CAT
    assert [one.loc for one in candidates([], 2.0, detections)] == [one.loc for one in detections[:left]]


def test_the_likeliest_comes_first_and_what_is_too_unlikely_goes():
    detections = [Detection(CAT, 2.0, -3.0), Detection(ELSEWHERE, -1.0, -3.0)]
    both = joined([], detections)
    assert [one.loc for one in both] == [CAT, ELSEWHERE] and both[0].probability > 0.8 > 0.3 > both[1].probability
    assert [one.loc for one in joined([], detections, least=0.5)] == [CAT]
    assert joined([], detections, least=1.0) == []


def test_further_boxes_of_a_thing_that_is_there_may_be_less_likely():
    calibration = replace(PLAIN, least=0.7, further=0.2)
    sure, unsure = Detection(CAT, 2.0, -3.0), Detection(ELSEWHERE, -1.0, -3.0)
    assert [one.loc for one in join(candidates([], 2.0, [sure, unsure]), calibration)] == [CAT, ELSEWHERE]
    assert join(candidates([], 2.0, [unsure]), calibration) == []


def test_a_proposal_that_only_the_classifier_takes_for_the_thing_is_considered():
    calibrated = replace(PLAIN, detector=(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.5))
    doubted, known = Detection(CAT, -6.0, -3.0, classified=2.0), Detection(ELSEWHERE, -6.0, -3.0)
    [one] = join(candidates([], 2.0, [doubted, known], there=1.0), calibrated, 0.5)
    assert one.loc == CAT and one.probability == pytest.approx(1 / (1 + math.exp(-2.5)))


def test_numbers_that_are_none_give_no_object():
    assert joined([wrote(CAT, math.nan)], None, presence=math.nan, least=0.01) == []


def test_the_calibration_is_read_from_the_configuration():
    raw = dict(resolve("nano").config)
    weights = {kind: [0.5, 1, 0, 0, 0, 0, 2, 0] for kind in ("both", "detector", "decoder", "unseen")}
    read = NanoConfig.from_json(raw | {"finding": {"least": 0.25, "further": 0.1, **weights}}).finding
    assert read == Calibration(0.25, 0.1, *[(0.5, 1.0, 0.0, 0.0, 0.0, 0.0, 2.0, 0.0)] * 4)
    for wrong in ({"least": 2, **weights}, {**weights, "both": [1, 2]}, {"both": "x"}):
        with pytest.raises(ModelError, match="finding.(least|both)"):
            NanoConfig.from_json(json.loads(json.dumps(raw | {"finding": wrong})))
