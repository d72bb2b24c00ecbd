"""Boxes ↔ locations ↔ pixels."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcli.decode.locations import decode_box, encode_box, pixel_box

locations = st.tuples(*[st.integers(0, 1023)] * 4)
sides = st.integers(1, 20_000)


@given(locations, sides, sides, st.sampled_from([1023, 1024]))
def test_encoding_inverts_decoding_exactly(loc, width, height, divisor):
    assert encode_box(decode_box(loc, width, height, divisor), width, height, divisor) == loc


def test_the_order_is_y_x_in_and_x_y_out():
    assert decode_box((0, 1023, 1023, 1023), 200, 100) == (200, 0, 200, 100)


@pytest.mark.parametrize(("divisor", "last"), [(1023, 640.0), (1024, 639.375)])
def test_only_1023_reaches_the_far_edge(divisor, last):
    assert decode_box((0, 0, 1023, 1023), 640, 640, divisor) == (0, 0, last, last)


@pytest.mark.parametrize(
    ("box", "loc"),
    [
        ((0, 0, 640, 480), (0, 0, 1023, 1023)),  # the whole image
        ((-50, -1, 700, 1e9), (0, 0, 1023, 1023)),  # beyond it
        ((float("-inf"), 0, float("inf"), 480), (0, 0, 1023, 1023)),
        ((320, 240, 640, 480), (512, 512, 1023, 1023)),  # 511.5 rounds to even, as the encoder of big_vision
    ],
)
def test_values_are_clipped_to_what_the_vocabulary_has(box, loc):
    assert encode_box(box, 640, 480) == loc


@pytest.mark.parametrize("loc", [(0, 0, 0, 1024), (-1, 0, 5, 5)])
def test_a_location_that_does_not_exist_is_refused(loc):
    with pytest.raises(ValueError, match="0 … 1023"):
        decode_box(loc, 10, 10)


coordinates = st.floats(-1e5, 1e5, allow_nan=False)


@given(st.tuples(*[coordinates] * 4), sides, sides)
def test_a_pixel_box_lies_in_the_image_and_is_never_empty(box, width, height):
    x0, y0, x1, y1 = pixel_box(box, width, height)
    assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height


@pytest.mark.parametrize(
    ("box", "pixels"),
    [
        ((1.4, 2.6, 7.5, 9.0), (1, 3, 8, 9)),
        ((3.6, 3.6, 4.4, 4.4), (4, 4, 5, 5)),  # both edges round to 4: the pixel at the middle
        ((9.9, 0.0, 10.0, 0.2), (9, 0, 10, 1)),  # at the corner
        ((-3, -3, 40, 40), (0, 0, 10, 10)),
    ],
)
def test_edges_round_to_the_nearest_pixel(box, pixels):
    assert pixel_box(box, 10, 10) == pixels
