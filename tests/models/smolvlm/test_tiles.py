"""The arithmetic of tiles: properties of any size, and the reference's own sizes."""

import foreign  # noqa: F401 (before transformers)
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.idefics3 import image_processing_pil_idefics3 as reference

from mmcli.models.smolvlm.tiles import LARGEST, Grid, fitted, grid_of, places, whole_tiles

sides = st.integers(1, 20_000)
longest = st.one_of(st.sampled_from([364, 384, 1456, 1536, 2048, 4096]), st.integers(1, 9000))
tile = st.one_of(st.sampled_from([364, 384, 512]), st.integers(1, 700))


@given(sides, sides, longest)
def test_the_longer_side_has_the_length_that_is_asked_for(width, height, longest):
    new = fitted((width, height), longest)
    assert max(new) in {min(longest, LARGEST), min(longest + longest % 2, LARGEST)} and min(new) >= 1
    assert (new[0] >= new[1]) == (width >= height) or abs(new[0] - new[1]) <= 1
    if max(new) < LARGEST:
        assert abs(min(new) - longest * min(width, height) / max(width, height)) <= 2


@given(sides, sides, tile)
def test_both_sides_become_whole_tiles_and_none_is_shortened_by_more_than_rounding(width, height, side):
    new = whole_tiles((width, height), side)
    assert all(length >= side and length % side == 0 for length in new)
    assert max(new) >= max(width, height) and min(new) >= min(width, height) - 1
    assert max(new) - max(width, height) < side


@given(st.integers(1, 8), st.integers(1, 8), st.integers(1, 64))
def test_tiles_cover_the_image_once_row_by_row(rows, columns, side):
    grid = grid_of((columns * side, rows * side), side)
    if rows == columns == 1:
        assert grid == Grid(0, 0) and grid.tiles == 1 and places(grid, side) == []
        return
    assert (grid.rows, grid.columns, grid.tiles) == (rows, columns, rows * columns + 1)
    covered = np.zeros((rows * side, columns * side), int)
    boxes = places(grid, side)
    for left, top, right, bottom in boxes:
        covered[top:bottom, left:right] += 1
        assert right - left == bottom - top == side
    assert (covered == 1).all() and boxes == sorted(boxes, key=lambda box: (box[1], box[0]))


@given(sides, sides, longest)
def test_sizes_are_those_of_the_reference(width, height, longest):
    expected = reference._resize_output_size_rescale_to_max_len(height, width, max_len=longest)
    expected = reference._resize_output_size_scale_below_upper_bound(*expected, max_len=reference.MAX_IMAGE_SIZE)
    assert fitted((width, height), longest) == expected[::-1]


class Recorder(reference.Idefics3ImageProcessorPil):
    """Takes down the sizes that it would resize to, and resizes nothing."""

    def resize(self, image, size, resample=None, **_):
        return np.broadcast_to(np.uint8(0), (3, size.height, size.width))


RECORDER = Recorder()


@given(sides, sides, st.integers(300, 700))
def test_grids_are_those_of_the_reference(width, height, side):
    image = np.broadcast_to(np.uint8(0), (3, height, width))
    whole = RECORDER.resize_for_vision_encoder(image, side)
    if 0 in whole.shape:  # the reference would fail
        return
    assert whole_tiles((width, height), side) == whole.shape[:0:-1]
    frames, rows, columns = RECORDER.split_images(whole, {"longest_edge": side})
    grid = grid_of(whole.shape[:0:-1], side)
    assert (grid.rows, grid.columns, grid.tiles) == (rows, columns, len(frames))
    assert all(frame.shape == (3, side, side) for frame in frames)


@pytest.mark.parametrize(
    ("size", "fit", "grid"),
    [
        ((1, 1), (2048, 2048), (4, 4)),
        ((30, 4000), (16, 2048), (4, 1)),
        ((4000, 30), (2048, 16), (1, 4)),
        ((560, 560), (2048, 2048), (4, 4)),
        ((100, 80), (2048, 1638), (4, 4)),
        ((1000, 500), (2048, 1024), (2, 4)),
    ],
)
def test_published_settings(size, fit, grid):
    assert fitted(size, 2048) == fit
    assert grid_of(whole_tiles(fit, 512), 512) == Grid(*grid)
