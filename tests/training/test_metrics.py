"""Measures: what is right scores best, and each kind of fault costs what it should."""

import sys

import numpy as np
import pytest

from mmcli.errors import UsageError
from mmcli.rle import encode
from mmcli.training.metrics.boxes import Compared, Marked, average_precision, mask_overlap
from mmcli.training.metrics.speech import error_rates, normalised

BOX = (10.0, 10.0, 50.0, 50.0)


def square(x0: int, y0: int, x1: int, y1: int):
    mask = np.zeros((80, 100), bool)
    mask[y0:y1, x0:x1] = True
    return encode(mask)


def one(truth, found) -> Compared:
    return Compared(100, 80, truth, found)


def test_boxes_that_are_all_right_have_an_average_precision_of_one():
    images = [one([Marked("cat", BOX), Marked("dog", BOX)], [Marked("dog", BOX, 0.2), Marked("cat", BOX, 0.9)])]
    assert average_precision(images, ["cat", "dog"]) == pytest.approx({"AP50": 1.0, "AP": 1.0})


def test_a_box_that_fits_by_six_tenths_counts_at_overlaps_up_to_that():
    near = (10.0, 10.0, 50.0, 35.0)  # 0.625 of the marked one
    images = [one([Marked("cat", BOX)], [Marked("cat", near, 0.5)])]
    assert average_precision(images, ["cat"]) == pytest.approx({"AP50": 1.0, "AP": 0.3}, abs=1e-6)


def test_what_is_found_in_vain_costs_if_it_is_surer_than_what_is_right():
    images = [one([Marked("cat", BOX)], [Marked("cat", BOX, 0.5)]), one([], [Marked("cat", BOX, 0.9)])]
    assert average_precision(images, ["cat"])["AP50"] == pytest.approx(0.5, abs=0.01)
    images = [one([Marked("cat", BOX)], [Marked("cat", BOX, 0.9)]), one([], [Marked("cat", BOX, 0.5)])]
    assert average_precision(images, ["cat"])["AP50"] == pytest.approx(1.0)


def test_boxes_of_another_label_and_no_boxes_are_worth_nothing():
    assert average_precision([one([Marked("cat", BOX)], [])], ["cat"]) == {"AP50": 0.0, "AP": 0.0}
    images = [one([Marked("cat", BOX)], [Marked("dog", BOX, 1.0)])]
    assert average_precision(images, ["cat", "dog"])["AP50"] == 0.0
    assert average_precision([one([], [Marked("cat", BOX, 1.0)])], []) == {}


def test_nothing_is_printed(capsys):
    average_precision([one([Marked("cat", BOX)], [Marked("cat", BOX)])], ["cat"])
    assert capsys.readouterr().out == ""


def test_masks_are_compared_by_their_pixels():
    mark = Marked("cat", BOX, mask=square(10, 10, 50, 50))
    half = Marked("cat", BOX, 0.5, square(10, 10, 50, 30))
    images = [one([mark], [half])]
    assert average_precision(images, ["cat"], masks=True) == pytest.approx({"AP50": 1.0, "AP": 0.1}, abs=1e-6)
    assert mask_overlap(images) == {"mask IoU": 0.5}
    assert mask_overlap([one([mark, mark], [half])]) == {"mask IoU": 0.25}  # it is taken once
    far = Marked("cat", (60.0, 60.0, 80.0, 80.0), 0.5, square(10, 10, 50, 50))
    assert mask_overlap([one([mark], [far])]) == {"mask IoU": 0.0}
    assert mask_overlap([one([Marked("cat", BOX)], [half])]) == {}


def test_letters_case_and_punctuation_do_not_count():
    assert normalised("“Don’t”, she SAID: ’tis 3-4 ﬁne…") == "don't she said tis 3 4 fine"
    rates = error_rates(["Ask not, what!", "a b c d"], ["ask not what", "a x c"])
    assert rates["WER"] == pytest.approx(2 / 7) and rates["CER"] > 0
    assert error_rates(["...", "a"], ["b", "a"]) == {"WER": 0.0, "CER": 0.0}
    assert error_rates(["..."], ["b"]) == {}


@pytest.mark.parametrize(
    ("module", "measure"),
    [
        ("jiwer", lambda: error_rates(["a"], ["a"])),
        ("pycocotools.coco", lambda: average_precision([one([Marked("cat", BOX)], [])], ["cat"])),
    ],
)
def test_what_is_missing_is_named_with_how_to_install_it(monkeypatch, module, measure):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=r"not installed. Install what it takes with: pip install 'mmcli\[evaluate\]'"):
        measure()
