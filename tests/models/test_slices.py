"""How images of any shape are cut, against sizes and pixels that the published code gave, and by its own rules."""

import json
import math
from pathlib import Path

import minicpmv_folders as folders
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcli.hub.pixel_values import PixelValues
from mmcli.models.slices import Slicing, sliced

# What MiniCPM-V 2.6's image_processing_minicpmv.py gave; it takes an image one pixel high for three channels of
# something else, and was asked for something else.
RECORDED = json.loads((Path(__file__).parents[1] / "minicpmv_recorded.json").read_text())["slices"]
PIXELS = RECORDED.pop("pixels")
sides = st.floats(0, 13).map(lambda power: int(2**power))


def size_of(name: str) -> tuple[int, int]:
    width, height = map(int, name.split("x"))
    return width, height


@pytest.mark.parametrize("rules", RECORDED)
def test_sizes_are_those_of_the_reference(rules):
    slicing = Slicing(*map(int, rules.split(",")))
    for name, (grid, overview, cut) in RECORDED[rules].items():
        ours = slicing.grid(size_of(name))
        assert ours == (grid and tuple(grid)), name
        assert slicing.overview(size_of(name)) == tuple(overview), name
        if ours:
            assert slicing.cut(size_of(name), ours) == tuple(cut), name


@pytest.mark.parametrize("name", PIXELS)
def test_pixels_are_those_of_the_reference(name):
    cut, _ = sliced(folders.image(*size_of(name)), Slicing(56, 4, 14))
    assert len(cut) == len(PIXELS[name])
    for one, (grid, total, weighed) in zip(cut, PIXELS[name], strict=True):
        assert (one.height // 14, one.width // 14) == tuple(grid)
        numbers = as_patches(PixelValues().of(one)).astype(np.float64)
        assert numbers.sum() == pytest.approx(total, abs=1e-3)
        weights = np.cos(np.arange(numbers.size)).reshape(numbers.shape)
        assert (numbers * weights).sum() == pytest.approx(weighed, abs=1e-3)


def as_patches(pixels: np.ndarray) -> np.ndarray:
    """[3, height, width] → [3, 14, 14 · patches], patch behind patch, as the reference has them."""
    channels, height, width = pixels.shape
    split = pixels.reshape(channels, height // 14, 14, width // 14, 14)
    return split.transpose(0, 2, 1, 3, 4).reshape(channels, 14, -1)


@settings(max_examples=200, deadline=None)
@given(sides, sides, st.integers(1, 12), st.sampled_from([(448, 14), (56, 14), (96, 16)]))
def test_any_image_is_cut_into_whole_patches(width, height, most, rules):
    side, patch = rules
    slicing = Slicing(side, most, patch)
    grid = slicing.grid((width, height))
    sizes = [slicing.overview((width, height)), *([slicing.cut((width, height), grid)] if grid else [])]
    assert all(length >= patch and length % patch == 0 for size in sizes for length in size)
    if grid is None:
        assert most == 1 or width * height <= side**2
        return
    assert 1 < grid[0] * grid[1] <= most
    assert all(length % (count * patch) == 0 for length, count in zip(sizes[1], grid, strict=True))
    # No grid of as many slices is nearer to the image's shape.
    count, shape = grid[0] * grid[1], math.log(width / height)
    others = [abs(shape - math.log(n / (count // n))) for n in range(1, count + 1) if count % n == 0]
    assert abs(shape - math.log(grid[0] / grid[1])) == min(others)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300))
def test_slices_are_the_image_cut_row_by_row(width, height):
    slicing = Slicing(56, 6, 14)
    image = folders.image(width, height)
    (overview, *slices), grid = sliced(image, slicing)
    assert overview.size == slicing.overview(image.size)
    assert (grid is None) == (not slices)
    if grid is None:
        return
    columns, rows = grid
    assert len(slices) == columns * rows
    parts = [np.hstack([np.asarray(one) for one in slices[row * columns : (row + 1) * columns]]) for row in range(rows)]
    whole = image.resize(slicing.cut(image.size, grid), 3)
    assert np.array_equal(np.vstack(parts), np.asarray(whole))
