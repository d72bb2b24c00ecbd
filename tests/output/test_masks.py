"""Small masks at their place in the image."""

import tracemalloc

import numpy as np
import pytest
from PIL import Image

from mmcli import rle
from mmcli.decode.locations import decode_box, pixel_box
from mmcli.output.masks import mask_image, paste_mask
from mmcli.output.schema import Object, Record

INSIDE = np.ones((64, 64), np.float32)
DISC = 20 - np.hypot(*(np.indices((64, 64)) - 31.5)).astype(np.float32)


def record(width, height, *masks):
    """Of an image with an object for each mask; None is one without."""
    objects = tuple(Object("cat", (0, 0, 1, 1), (0, 0, 1, 1), mask=mask) for mask in masks)
    return Record(task="segment", source="a.png", model="nano", width=width, height=height, objects=objects)


@pytest.mark.parametrize("box", [(0, 0, 40, 30), (3, 5, 4, 6), (10, 0, 11, 30), (39, 29, 40, 30)])
def test_a_full_mask_fills_exactly_its_box(box):
    whole = paste_mask(INSIDE, box, 40, 30)
    assert whole.shape == (30, 40) and whole.dtype == bool
    x0, y0, x1, y1 = box
    assert whole[y0:y1, x0:x1].all() and whole.sum() == (x1 - x0) * (y1 - y0)


def test_an_enlarged_outline_is_round_and_not_stairs():
    whole = paste_mask(DISC, (0, 0, 640, 640), 640, 640)
    y, x = np.indices((640, 640)) + 0.5 - 320
    distance = np.hypot(x, y)
    assert whole[distance < 195].all() and not whole[distance > 205].any()


@pytest.mark.parametrize("box", [(0, 0, 1500, 1400), (7, 3, 1490, 1399), (2, 0, 1499, 1)])
def test_a_mask_stretched_in_strips_is_the_mask_stretched_whole(box):
    size = box[2] - box[0], box[3] - box[1]
    whole = np.asarray(Image.fromarray(DISC).resize(size, Image.Resampling.BILINEAR)) > 0
    assert (paste_mask(DISC, box, 1500, 1400)[box[1] : box[3], box[0] : box[2]] == whole).all()


def test_a_mask_takes_few_bytes_a_pixel():
    """Floats of the whole, and a second order of its pixels, took 3.5 GB for an image of 250 megapixels."""
    tracemalloc.start()
    try:
        encoded = rle.encode(paste_mask(DISC, (0, 0, 4000, 4000), 4000, 4000))
        mask_image(record(4000, 4000, encoded, encoded))
        assert tracemalloc.get_traced_memory()[1] < 2.5 * 4000 * 4000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("value", "inside"), [(1e-6, True), (0.05, True), (-0.05, False), (-1e-6, False)])
def test_whatever_is_above_zero_is_inside(value, inside):
    whole = paste_mask(np.full((64, 64), value, np.float32), (2, 1, 90, 70), 100, 80)
    assert whole[1:70, 2:90].all() if inside else not whole.any()


def test_an_outline_lies_where_the_map_crosses_zero():
    """A slope from -1 to 1 over the box, crossing zero in its middle; a threshold of 0.1 would move it by 5 %."""
    slope = np.tile(np.linspace(-1, 1, 64, dtype=np.float32), (64, 1))
    whole = paste_mask(slope, (0, 0, 1000, 10), 1000, 10)
    assert whole[:, 500:].all() and not whole[:, :500].any()


def test_zero_is_outside():
    assert not paste_mask(np.zeros((64, 64), np.float32), (0, 0, 9, 9), 9, 9).any()


@pytest.mark.parametrize("box", [(0, 0, 41, 30), (5, 5, 5, 9), (-1, 0, 3, 3), (9, 9, 3, 3)])
def test_a_box_that_leaves_the_image_or_is_empty_is_refused(box):
    with pytest.raises(ValueError, match="is empty or leaves"):
        paste_mask(INSIDE, box, 40, 30)


def test_box_and_mask_of_one_object_agree_to_half_a_pixel():
    for loc in (0, 0, 1023, 1023), (17, 333, 18, 1000), (500, 1, 800, 400):
        box = decode_box(loc, 321, 123)
        columns = np.flatnonzero(paste_mask(INSIDE, pixel_box(box, 321, 123), 321, 123).any(0))
        assert abs(columns[0] - box[0]) <= 0.5 and abs(columns[-1] + 1 - box[2]) <= 0.5


def test_the_mask_image_joins_all_objects():
    masks = [paste_mask(INSIDE, box, 40, 30) for box in ((0, 0, 5, 5), (3, 3, 9, 9))]
    image = mask_image(record(40, 30, *map(rle.encode, masks), None))
    assert image.mode == "L" and image.size == (40, 30)
    assert np.array_equal(np.asarray(image), (masks[0] | masks[1]) * 255)


def test_without_masks_the_mask_image_is_black():
    assert mask_image(record(4, 3)).getextrema() == (0, 0)
