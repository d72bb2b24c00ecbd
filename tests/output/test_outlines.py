"""Outlines of masks: the polygon holds the mask's pixels, whatever its parts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from mmcli.output.outlines import outline, simplified
from mmcli.rle import encode

FINE = 8  # parts of a pixel's side in which a polygon is drawn


def drawn(points, height, width) -> np.ndarray:
    """The pixels whose middle lies in a polygon."""
    image = Image.new("1", (width * FINE, height * FINE))
    ImageDraw.Draw(image).polygon([(x * FINE, y * FINE) for x, y in points], fill=1)
    return np.asarray(image)[FINE // 2 :: FINE, FINE // 2 :: FINE]


def overlap(one, other) -> float:
    return (one & other).sum() / max((one | other).sum(), 1)


def ellipse(height, width, y, x, down, right) -> np.ndarray:
    rows, columns = np.ogrid[:height, :width]
    return ((rows - y) / down) ** 2 + ((columns - x) / right) ** 2 < 1


def test_a_rectangle_has_four_corners():
    mask = np.zeros((5, 9), bool)
    mask[1:4, 2:7] = True
    assert sorted(outline(encode(mask))) == [(2, 1), (2, 4), (7, 1), (7, 4)]


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (3, 4)])
def test_a_mask_up_to_the_edges_has_the_images_corners(shape):
    height, width = shape
    assert sorted(outline(encode(np.ones(shape, bool)))) == [(0, 0), (0, height), (width, 0), (width, height)]


def test_nothing_has_no_outline():
    assert outline(encode(np.zeros((4, 4), bool))) == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.floats(2, 58)] * 2, *[st.floats(3, 25)] * 2), min_size=1, max_size=4))
def test_the_outline_of_round_parts_holds_their_pixels(parts):
    mask = np.zeros((60, 60), bool)
    for part in parts:
        mask |= ellipse(60, 60, *part)
    if mask.any() and not holes(mask):
        assert overlap(drawn(outline(encode(mask)), 60, 60), mask) > 0.93


def holes(mask) -> bool:
    """Whether some of the outside cannot be reached from the edge."""
    image = Image.fromarray(np.pad(mask, 1).astype(np.uint8) * 255)
    ImageDraw.floodfill(image, (0, 0), 255)
    return not np.asarray(image).all()


def test_holes_are_filled():
    mask = ellipse(40, 40, 20, 20, 15, 15) & ~ellipse(40, 40, 20, 20, 5, 5)
    assert overlap(drawn(outline(encode(mask)), 40, 40), ellipse(40, 40, 20, 20, 15, 15)) > 0.95


def test_parts_that_touch_with_their_corners_are_all_held():
    mask = np.zeros((8, 8), bool)
    mask[1:4, 1:4] = mask[4:7, 4:7] = True
    assert overlap(drawn(outline(encode(mask)), 8, 8), mask) > 0.9


def test_a_simplified_line_stays_within_its_tolerance():
    stairs = [(i // 2, (i + 1) // 2) for i in range(100)] + [(0, 50)]
    few = simplified(stairs, 0.75)
    assert len(few) < 8 and set(few) <= set(stairs)
