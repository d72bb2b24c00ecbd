"""How Fuyu reads images: shrunk to fit, never enlarged, padded to whole patches, cut into them row by row.

Source: transformers `models/fuyu/image_processing_pil_fuyu.py`.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mmcli.decode.half_pixels import Fit
from mmcli.errors import ModelError
from mmcli.hub import pixel_values
from mmcli.hub.pixel_values import PixelValues, image_fields

SIDE = (1, 1 << 14)  # pixels
ABSENT = pixel_values.ABSENT | {
    "size": {"height": 1080, "width": 1920}, "do_resize": True, "do_pad": True, "padding_mode": "constant",
    "padding_value": 1.0, "resample": Image.Resampling.BILINEAR.value,
}  # fmt: skip


@dataclass(frozen=True)
class ImageSettings:
    """How an image becomes patches; the defaults are those of transformers' image processor."""

    patch: int  # pixels of a patch's side
    fit: Fit = Fit()  # noqa: RUF009 (frozen)
    resample: Image.Resampling = Image.Resampling.BILINEAR
    padding: int = 1  # of 255, and so almost black: what is added on the right and below
    values: PixelValues = PixelValues()  # noqa: RUF009 (frozen)

    @classmethod
    def open(cls, folder: Path, patch: int) -> "ImageSettings":
        """Read preprocessor_config.json, or what processor_config.json says in its place, for patches of that side.

        Raises ModelError for wrong values, and for those that mmcli does not support.
        """
        raw = image_fields(folder, ABSENT)
        size, own = raw.part("size"), raw.part("patch_size", {"height": patch, "width": patch})
        fit = Fit(size.whole("height", *SIDE), size.whole("width", *SIDE))
        if (own.get("height"), own.get("width")) != (patch, patch) or fit.height % patch or fit.width % patch:
            raise ModelError(
                f"{raw.where} cuts images of up to {fit.width} × {fit.height} pixels into patches that do not fit: "
                f"the model reads patches of {patch} × {patch}"
            )
        if not (raw.flag("do_resize") and raw.flag("do_pad")):
            raise ModelError(f"{raw.where} leaves images as large as they are, or without padding: not supported")
        raw.require("padding_mode", "constant", None)
        return cls(
            patch=patch,
            fit=fit,
            resample=Image.Resampling(raw.whole("resample", 0, len(Image.Resampling) - 1)),
            padding=int(raw.number("padding_value", 0, 255)),  # numbers of 8 bits are padded with whole ones
            values=PixelValues.read(raw),
        )

    def grid(self, image: Image.Image) -> tuple[int, int]:
        """Rows and columns of patches that an image becomes."""
        height, width = self.fit.resized(image.height, image.width)
        return math.ceil(height / self.patch), math.ceil(width / self.patch)

    def patches(self, image: Image.Image) -> np.ndarray:
        """RGB image of any size → float32 [P, 3·patch²], row by row; in a patch line by line, a pixel's colours last.

        ValueError for an image in other colours.
        """
        if image.mode != "RGB":
            raise ValueError(f"expected an RGB image, got {image.mode}")
        height, width = self.fit.resized(image.height, image.width)
        if (height, width) != (image.height, image.width):
            image = image.resize((width, height), self.resample)  # Pillow antialiases when it shrinks
        (rows, columns), side = self.grid(image), self.patch
        padded = Image.new("RGB", (columns * side, rows * side), (self.padding,) * 3)
        padded.paste(image)
        cut = self.values.of(padded).reshape(3, rows, side, columns, side).transpose(1, 3, 2, 4, 0)
        return np.ascontiguousarray(cut).reshape(rows * columns, -1)
