"""How a checkpoint wants pictures: what preprocessor_config.json and processor_config.json say about them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmcli.errors import ModelError
from mmcli.hub.json_files import read_json


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
        raw = whole.get("image_processor") or read_json(folder / "preprocessor_config.json")
        size = raw.get("size") or {"height": 224, "width": 224}
        height, width = size.get("height"), size.get("width")
        if side is not None and (height, width) != (side, side):
            raise ModelError(f"{folder} resizes pictures to {size}, but its vision tower takes {side} × {side} pixels")
        if not isinstance(height, int) or height != width:
            raise ModelError(f"{folder} resizes pictures to {size}: only squares are supported")
        counted = raw.get("image_seq_length", whole.get("image_seq_length", soft_tokens))
        if counted != soft_tokens:
            raise ModelError(
                f"{folder} expects {counted} soft tokens a picture (image_seq_length), "
                f"but its vision tower gives {soft_tokens}"
            )
        if raw.get("do_resize") is False or raw.get("do_center_crop") or raw.get("do_pad"):
            raise ModelError(f"{folder} crops or pads pictures, or leaves them as large as they are: not supported")
        normalize = raw.get("do_normalize", True)
        return cls(
            side=height,
            resample=Image.Resampling(raw.get("resample", Image.Resampling.BICUBIC)),
            factor=raw.get("rescale_factor", 1 / 255) if raw.get("do_rescale", True) else 1.0,
            mean=_channels(raw.get("image_mean", 0.5)) if normalize else (0.0,) * 3,
            std=_channels(raw.get("image_std", 0.5)) if normalize else (1.0,) * 3,
        )

    def pixels(self, picture: Image.Image) -> np.ndarray:
        """RGB picture of any size → float32 [3, side, side]."""
        if picture.mode != "RGB":
            raise ValueError(f"expected an RGB picture, got {picture.mode}")
        squeezed = picture.resize((self.side, self.side), self.resample)  # Pillow antialiases when it shrinks
        numbers = (np.asarray(squeezed, dtype=np.float64) * self.factor).astype(np.float32)
        numbers = (numbers - np.float32(self.mean)) / np.float32(self.std)
        return np.ascontiguousarray(numbers.transpose(2, 0, 1))


def read_settings(folder: Path) -> dict[str, Any]:
    """processor_config.json, or nothing where a checkpoint has none. Raises ModelError where it is damaged."""
    return read_json(folder / "processor_config.json") if (folder / "processor_config.json").is_file() else {}


def _channels(value: float | Sequence[float]) -> tuple[float, ...]:
    return tuple(value) if isinstance(value, Sequence) else (value,) * 3
