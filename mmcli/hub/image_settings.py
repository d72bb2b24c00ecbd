"""How a checkpoint's images are prepared: what preprocessor_config.json and processor_config.json say about them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mmcli.errors import ModelError
from mmcli.hub import pixel_values
from mmcli.hub.fields import SIDE, Fields, shown
from mmcli.hub.pixel_values import PixelValues, image_fields, processor_fields

ABSENT = pixel_values.ABSENT | {
    "size": {"height": 224, "width": 224}, "do_resize": True, "do_center_crop": False, "do_pad": False,
    "resample": Image.Resampling.BICUBIC.value,
}  # fmt: skip


@dataclass(frozen=True)
class ImageSettings:
    """How an image becomes numbers. The defaults are those of transformers' SigLIP image processor."""

    side: int  # pixels; the image is squeezed to a square, whatever its shape
    resample: Image.Resampling = Image.Resampling.BICUBIC
    values: PixelValues = PixelValues()  # noqa: RUF009 (frozen)

    @classmethod
    def open(cls, folder: Path, soft_tokens: int | Callable[[int], int], side: int | None = None) -> "ImageSettings":
        """Read a checkpoint's settings, for a vision tower that gives `soft_tokens` and takes `side` (None: any side).

        Where soft tokens depend on the side, `soft_tokens` gives their number for a side. Raises ModelError where there
        are no settings or they do not suit the tower.
        """
        whole, raw = processor_fields(folder), image_fields(folder, ABSENT)
        height = _square(raw, folder, side)
        soft_tokens = soft_tokens if isinstance(soft_tokens, int) else soft_tokens(height)
        counted = (raw if "image_seq_length" in raw else whole).get("image_seq_length")
        if counted not in (None, soft_tokens):
            raise ModelError(
                f"{folder} expects {shown(counted)} soft tokens a picture (image_seq_length), "
                f"but its vision tower gives {soft_tokens}"
            )
        if not raw.flag("do_resize") or raw.flag("do_center_crop") or raw.flag("do_pad"):
            raise ModelError(f"{folder} crops or pads pictures, or leaves them as large as they are: not supported")
        return cls(
            side=height,
            resample=Image.Resampling(raw.whole("resample", 0, len(Image.Resampling) - 1)),
            values=PixelValues.read(raw),
        )

    @property
    def square(self) -> tuple[int, int]:
        """The square that an image is made first, see `Processor.square`."""
        return self.side, self.resample.value

    def pixels(self, image: Image.Image) -> np.ndarray:
        """RGB image of any size → float32 [3, side, side]."""
        if image.mode != "RGB":
            raise ValueError(f"expected an RGB picture, got {image.mode}")
        squeezed = image.resize((self.side, self.side), self.resample)  # Pillow antialiases when it shrinks
        return self.values.of(squeezed)


def _square(raw: Fields, folder: Path, expected: int | None) -> int:
    """The side in pixels that images are squeezed to, and that the tower takes (None: any)."""
    size = raw.part("size")
    height, width = size.get("height"), size.get("width")
    if expected is not None and (height, width) != (expected, expected):
        raise ModelError(
            f"{folder} resizes pictures to {shown(size.raw)}, but its vision tower takes {expected} × {expected} pixels"
        )
    if height is None or height != width:
        raise ModelError(f"{folder} resizes pictures to {shown(size.raw)}: only squares are supported")
    return size.whole("height", *SIDE)
