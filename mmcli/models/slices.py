"""An image of any shape as one overview and slices of it, each about as large as what a vision tower was trained on.

The idea is LLaVA-UHD's (arXiv:2403.11703). The rules are those by which MiniCPM-V 2.0 to 2.6 were trained, down to
where they round: OpenBMB/MiniCPM-V `finetune/dataset.py` and the models' own `image_processing_minicpmv.py`.
"""

import math
from dataclasses import dataclass

from PIL import Image

Size = tuple[int, int]  # pixels: width and height
Grid = tuple[int, int]  # slices: columns and rows


@dataclass(frozen=True)
class Slicing:
    """How images are cut. The defaults are those of every published MiniCPM-V."""

    side: int = 448  # pixels; overview and slices have about the area of such a square, in the shape of the image
    most: int = 9  # slices of one image
    patch: int = 14  # pixels; sides are multiples of it

    def grid(self, size: Size) -> Grid | None:
        """The grid of slices for an image, close to its shape; None for one that is not cut.

        There are about as many slices as the image has areas of `side` × `side`, but one more or less where their
        grid comes closer to the shape.
        """
        width, height = size
        count = min(math.ceil(width * height / self.side**2), self.most)
        if count <= 1:
            return None
        counts = [n for n in (count - 1, count, count + 1) if 1 < n <= self.most]
        grids = [(columns, n // columns) for n in counts for columns in range(1, n + 1) if n % columns == 0]
        shape = math.log(width / height)
        return min(grids, key=lambda grid: abs(shape - math.log(grid[0] / grid[1])))  # of equals, the first

    def overview(self, size: Size) -> Size:
        """What the whole image is resized to."""
        return self._fitted(*size)

    def cut(self, size: Size, grid: Grid) -> Size:
        """What the image is resized to before it is cut: `grid` times the size of a slice."""
        wide, high = (_nearest(length, count) / count for length, count in zip(size, grid, strict=True))
        width, height = self._fitted(wide, high)
        return width * grid[0], height * grid[1]

    def _fitted(self, width: float, height: float) -> Size:
        """A size with the area of a square of `side` and the given shape, in whole patches."""
        shape = width / height
        high = int(self.side / math.sqrt(shape))
        return _nearest(int(high * shape), self.patch), _nearest(high, self.patch)


def _nearest(length: float, unit: int) -> int:
    """The multiple of `unit` that is nearest, but not 0; of two as near, that of an even number."""
    return max(round(length / unit) * unit, unit)


def sliced(image: Image.Image, slicing: Slicing) -> tuple[list[Image.Image], Grid | None]:
    """An RGB image → its overview and then its slices, row by row; and their grid, None where there are no slices."""
    overview = image.resize(slicing.overview(image.size), Image.Resampling.BICUBIC)
    grid = slicing.grid(image.size)
    if grid is None:
        return [overview], None
    whole = image.resize(slicing.cut(image.size, grid), Image.Resampling.BICUBIC)
    wide, high = whole.width // grid[0], whole.height // grid[1]
    places = ((x, y) for y in range(0, whole.height, high) for x in range(0, whole.width, wide))
    return [overview, *(whole.crop((x, y, x + wide, y + high)) for x, y in places)], grid
