"""How an image is cut into square tiles: sizes in pixels only.

An image is enlarged or shrunk until its longer side has a given length, then stretched a little until both sides are
whole numbers of tiles. The tiles are read row by row, and behind them the whole image squeezed to one tile. The
arithmetic, its rounding included, is that of transformers (`image_processing_pil_idefics3.py`), which models were
trained with.
"""

from dataclasses import dataclass
from math import ceil

LARGEST = 4096  # pixels: no side is made longer, whatever a checkpoint's settings say

Size = tuple[int, int]  # width and height


@dataclass(frozen=True)
class Grid:
    """Rows and columns of tiles; none of either where an image is one tile, which is the whole image."""

    rows: int = 0
    columns: int = 0

    @property
    def tiles(self) -> int:
        """How many are read, the whole image's own included."""
        return self.rows * self.columns + 1


def fitted(size: Size, longest: int) -> Size:
    """The size of an image whose longer side is to have `longest` pixels.

    The shorter side keeps the proportion, rounded down and then up to an even number, and is at least 1.
    """
    width, height = size
    proportion = width / height
    if width >= height:
        width, height = longest, _even(int(longest / proportion))
    else:
        width, height = _even(int(longest * proportion)), longest
    return _bounded((max(width, 1), max(height, 1)))


def _even(side: int) -> int:
    return side + side % 2


def _bounded(size: Size) -> Size:
    """A size within `LARGEST`."""
    width, height = size
    proportion = width / height
    if max(size) <= LARGEST:
        return size
    if width >= height:
        return LARGEST, max(int(LARGEST / proportion), 1)
    return max(int(LARGEST * proportion), 1), LARGEST


def whole_tiles(size: Size, side: int) -> Size:
    """The size in whole tiles of `side` pixels: the longer side is rounded up, the other follows it and then too."""
    width, height = size
    proportion = width / height
    if width >= height:
        width = _up(width, side)
        return width, _up(int(width / proportion), side)
    height = _up(height, side)
    return _up(int(height * proportion), side), height


def _up(length: int, side: int) -> int:
    """At least one tile: where a product is rounded to just below one pixel, the reference fails."""
    return max(ceil(length / side), 1) * side


def grid_of(size: Size, side: int) -> Grid:
    """The grid of an image of `size`, which is in whole tiles."""
    width, height = size
    return Grid() if width <= side and height <= side else Grid(height // side, width // side)


def places(grid: Grid, side: int) -> list[tuple[int, int, int, int]]:
    """Left, top, right and bottom of each tile of a grid, row by row."""
    return [
        (column * side, row * side, (column + 1) * side, (row + 1) * side)
        for row in range(grid.rows)
        for column in range(grid.columns)
    ]
