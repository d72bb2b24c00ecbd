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
from mmcli.hub.fields import Fields
from mmcli.hub.json_files import read_json

SIDE = (1, 1 << 14)  # pixels
ABSENT = {
    "size": {"height": 1080, "width": 1920}, "do_resize": True, "do_pad": True, "padding_mode": "constant",
    "padding_value": 1.0, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
    "resample": Image.Resampling.BILINEAR.value, "image_mean": 0.5, "image_std": 0.5,
}  # fmt: skip


@dataclass(frozen=True)
class ImageSettings:
    """How an image becomes patches; the defaults are those of transformers' image processor."""

    patch: int  # pixels of a patch's side
    fit: Fit = Fit()  # noqa: RUF009 (frozen)
    resample: Image.Resampling = Image.Resampling.BILINEAR
    padding: int = 1  # of 255, and so almost black: what is added on the right and below
    factor: float = 1 / 255
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    @classmethod
    def open(cls, folder: Path, patch: int) -> "ImageSettings":
        """Read preprocessor_config.json, or what processor_config.json says in its place, for patches of that side.

        Raises ModelError for wrong values, and for those that mmcli does not support.
        """
        path = folder / "processor_config.json"
        whole = Fields(read_json(path) if path.is_file() else {}, str(path))
        if "image_processor" in whole:
            raw = whole.part("image_processor", ABSENT)
        else:
            path = folder / "preprocessor_config.json"
            raw = Fields(read_json(path), str(path), ABSENT)
        size, own = raw.part("size"), raw.part("patch_size", {"height": patch, "width": patch})
        fit = Fit(size.whole("height", *SIDE), size.whole("width", *SIDE))
        if (own.get("height"), own.get("width")) != (patch, patch) or fit.height % patch or fit.width % patch:
            raise ModelError(
                f"{path} cuts images of up to {fit.width} × {fit.height} pixels into patches that do not fit: "
                f"the model reads patches of {patch} × {patch}"
            )
        if not (raw.flag("do_resize") and raw.flag("do_pad")):
            raise ModelError(f"{path} leaves images as large as they are, or without padding: not supported")
        raw.require("padding_mode", "constant", None)
        normalises = raw.flag("do_normalize")
        return cls(
            patch=patch,
            fit=fit,
            resample=Image.Resampling(raw.whole("resample", 0, len(Image.Resampling) - 1)),
            padding=int(raw.number("padding_value", 0, 255)),  # numbers of 8 bits are padded with whole ones
            factor=raw.number("rescale_factor", -1e6, 1e6) if raw.flag("do_rescale") else 1.0,
            mean=_channels(raw, "image_mean") if normalises else (0.0,) * 3,
            std=_channels(raw, "image_std") if normalises else (1.0,) * 3,
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
        padded = np.full((rows * side, columns * side, 3), self.padding, dtype=np.uint8)
        padded[:height, :width] = np.asarray(image)
        cut = padded.reshape(rows, side, columns, side, 3).swapaxes(1, 2)
        numbers = (np.arange(256, dtype=np.float64) * self.factor).astype(np.float32)[cut]
        mean, std = (np.array(values, dtype=np.float32) for values in (self.mean, self.std))
        return ((numbers - mean) / std).reshape(rows * columns, -1)


def _channels(raw: Fields, key: str) -> tuple[float, ...]:
    """A number for each of red, green and blue, which one may stand for; a deviation is not 0."""
    low = 1e-6 if key == "image_std" else -1e6
    if isinstance(raw.get(key), list):
        return raw.numbers(key, low, 1e6, longest=3, length=3)
    return (raw.number(key, low, 1e6),) * 3
