"""Masks as COCO RLE, against pycocotools."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from mmcli import rle


def official(mask):
    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return rle.Mask(tuple(encoded["size"]), encoded["counts"].decode("ascii"))


def disc(height, width):
    y, x = np.ogrid[:height, :width]
    return (y - height / 2) ** 2 + (x - width / 3) ** 2 < (min(height, width) / 3) ** 2


@pytest.mark.parametrize(
    "mask",
    [
        np.zeros((5, 7), bool),  # nothing
        np.ones((5, 7), bool),  # all of it: the first run, of background, is empty
        np.eye(9, dtype=bool),
        np.ones((1, 1), bool),
        np.zeros((1, 1), bool),
        np.indices((8, 9)).sum(0) % 2 == 0,  # as many runs as pixels
        disc(480, 640),
        disc(3000, 2000),  # runs that need several groups of five bits, and negative differences
        np.pad(np.ones((100, 1), bool), [(0, 0), (5000, 0)]),  # one very long run, then the end
    ],
)
def test_the_encoding_equals_that_of_pycocotools(mask):
    assert rle.encode(mask) == official(mask)
    assert np.array_equal(rle.decode(rle.encode(mask)), mask)


masks = (
    st.integers(1, 12)
    .flatmap(lambda width: st.lists(st.lists(st.booleans(), min_size=width, max_size=width), min_size=1, max_size=40))
    .map(np.array)
)


@given(masks)
@settings(max_examples=200)
def test_any_mask_is_encoded_as_by_pycocotools_and_comes_back(mask):
    assert rle.encode(mask) == official(mask)
    assert np.array_equal(rle.decode(rle.encode(mask)), mask)


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        ("", "do not fill"),
        ("5", "do not fill"),
        ("é", "does not belong"),
        ("P", "end within a number"),
        ("O1", "do not fill"),  # a run of −1
    ],
)
def test_damaged_runs_are_a_value_error(counts, sentence):
    with pytest.raises(ValueError, match=sentence):
        rle.decode(rle.Mask((3, 4), counts))
