"""How a checkpoint wants pictures: what preprocessor_config.json and processor_config.json say about them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mmcli.errors import ModelError
from mmcli.hub.fields import SIDE, Fields, shown
from mmcli.hub.json_files import read_json

ABSENT = {
    "size": {"height": 224, "width": 224}, "do_resize": True, "do_center_crop": False, "do_pad": False,
    "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "resample": Image.Resampling.BICUBIC.value,
    "image_mean": 0.5, "image_std": 0.5,
}  # fmt: skip


@dataclass(frozen=True)
class PictureSettings:
    """How a picture becomes numbers. The defaults are those of transformers' SigLIP image processor."""

    side: int  # pixels; the picture is squeezed to a square, whatever its shape
    resample: Image.Resampling = Image.Resampling.BICUBIC
    factor: float = 1 / 255
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    @classmethod
    def open(cls, folder: Path, soft_tokens: int, side: int | None = None) -> "PictureSettings":
        """Read a checkpoint's settings, for a vision tower that gives `soft_tokens` and takes `side` (None: any side).

        Raises ModelError where there are none or they do not suit the tower.
        """
        whole = read_settings(folder)
        if "image_processor" in whole:
            raw = whole.part("image_processor", ABSENT)
        else:
            path = folder / "preprocessor_config.json"
            raw = Fields(read_json(path), str(path), ABSENT)
        height = _square(raw, folder, side)
        counted = (raw if "image_seq_length" in raw else whole).get("image_seq_length")
        if counted not in (None, soft_tokens):
            raise ModelError(
                f"{folder} expects {shown(counted)} soft tokens a picture (image_seq_length), "
                f"but its vision tower gives {soft_tokens}"
            )
        if not raw.flag("do_resize") or raw.flag("do_center_crop") or raw.flag("do_pad"):
            raise ModelError(f"{folder} crops or pads pictures, or leaves them as large as they are: not supported")
        normalize = raw.flag("do_normalize")
        return cls(
            side=height,
            resample=Image.Resampling(raw.whole("resample", 0, len(Image.Resampling) - 1)),
            factor=raw.number("rescale_factor", -1e6, 1e6) if raw.flag("do_rescale") else 1.0,
            mean=_channels(raw, "image_mean") if normalize else (0.0,) * 3,
            std=_channels(raw, "image_std") if normalize else (1.0,) * 3,
        )

    def pixels(self, picture: Image.Image) -> np.ndarray:
        """RGB picture of any size → float32 [3, side, side]."""
        if picture.mode != "RGB":
            raise ValueError(f"expected an RGB picture, got {picture.mode}")
        squeezed = picture.resize((self.side, self.side), self.resample)  # Pillow antialiases when it shrinks
        numbers = (np.asarray(squeezed, dtype=np.float64) * self.factor).astype(np.float32)
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        numbers = (numbers - mean) / std
        return np.ascontiguousarray(numbers.transpose(2, 0, 1))


def read_settings(folder: Path) -> Fields:
    """processor_config.json, or nothing where a checkpoint has none. Raises ModelError where it is damaged."""
    path = folder / "processor_config.json"
    return Fields(read_json(path) if path.is_file() else {}, str(path))


def _square(raw: Fields, folder: Path, expected: int | None) -> int:
    """The side in pixels that pictures are squeezed to, and that the tower takes (None: any)."""
    size = raw.part("size")
    height, width = size.get("height"), size.get("width")
    if expected is not None and (height, width) != (expected, expected):
        raise ModelError(
            f"{folder} resizes pictures to {shown(size.raw)}, but its vision tower takes {expected} × {expected} pixels"
        )
    if height is None or height != width:
        raise ModelError(f"{folder} resizes pictures to {shown(size.raw)}: only squares are supported")
    return size.whole("height", *SIDE)


def _channels(raw: Fields, key: str) -> tuple[float, ...]:
    """A number for each of red, green and blue, which one may stand for; a deviation is not 0."""
    low = 1e-6 if key == "image_std" else -1e6
    if isinstance(raw.get(key), list):
        return raw.numbers(key, low, 1e6, longest=3, length=3)
    return (raw.number(key, low, 1e6),) * 3
