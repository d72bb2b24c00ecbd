"""How SmolVLM reads an image: resized, cut into square tiles, and once more as a whole.

Source: transformers `models/{idefics3,smolvlm}/image_processing_pil_*.py`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmcli.errors import ModelError
from mmcli.hub import pixel_values
from mmcli.hub.fields import SIDE, Fields
from mmcli.hub.pixel_values import PixelValues, image_fields
from mmcli.models.smolvlm.tiles import LARGEST, Grid, Size, fitted, grid_of, places, whole_tiles

MOST_TILES = 32  # a side, of an image as large as its settings allow
ABSENT: dict[str, Any] = pixel_values.ABSENT | {
    "size": {"longest_edge": 4 * 364}, "max_image_size": {"longest_edge": 364}, "do_resize": True,
    "do_image_splitting": True, "do_convert_rgb": True, "resample": Image.Resampling.LANCZOS.value,
}  # fmt: skip


@dataclass(frozen=True)
class TileSettings:
    """How an image becomes tiles."""

    side: int  # pixels of a tile
    longest: int | None  # pixels that the longer side is given first; None: it stays as it is
    splits: bool = True  # False: the image is squeezed to one tile
    resample: Image.Resampling = Image.Resampling.LANCZOS
    values: PixelValues = PixelValues()  # noqa: RUF009 (frozen)

    @classmethod
    def open(cls, folder: Path) -> "TileSettings":
        """Read a checkpoint's settings. Raises ModelError where there are none, and for those that make no sense."""
        raw = image_fields(folder, ABSENT)
        side = raw.part("max_image_size").whole("longest_edge", *SIDE)
        longest = _longest(raw) if raw.flag("do_resize") else None
        if longest is not None and min(longest, LARGEST) > MOST_TILES * side:
            raise ModelError(f"{folder} cuts images of {longest} pixels into tiles of {side}: they are far too many")
        return cls(
            side=side,
            longest=longest,
            splits=raw.flag("do_image_splitting"),
            resample=Image.Resampling(raw.whole("resample", 0, len(Image.Resampling) - 1)),
            values=PixelValues.read(raw),
        )

    def grid(self, size: Size) -> Grid:
        """The tiles that an image of this size is cut into."""
        return grid_of(self._whole(size), self.side)

    def _fitted(self, size: Size) -> Size:
        return size if self.longest is None else fitted(size, self.longest)

    def _whole(self, size: Size) -> Size:
        return whole_tiles(self._fitted(size), self.side) if self.splits else (self.side, self.side)

    def tiles(self, image: Image.Image) -> np.ndarray:
        """RGB image of any size → float32 [tiles, 3, side, side]: those of its grid row by row, then the whole image.

        It is resized as often as in the reference, each time to 8 bits. ValueError for an image in other colours.
        """
        whole = self._whole(image.size)
        boxes = places(grid_of(whole, self.side), self.side)
        image = image.resize(self._fitted(image.size), self.resample).resize(whole, self.resample)
        tiles = [image.crop(box) for box in boxes] + [image.resize((self.side, self.side), self.resample)]
        return np.stack([self.values.of(tile) for tile in tiles])


def _longest(raw: Fields) -> int:
    """The length in pixels that the longer side is given."""
    size = raw.part("size")
    if size.get("longest_edge") is None:
        raise raw.wrong("size", "the longest_edge, for only resizing in proportion is supported")
    return size.whole("longest_edge", 1, 1 << 16)
