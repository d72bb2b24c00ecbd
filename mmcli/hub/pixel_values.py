"""From a pixel's 8 bits to the numbers that a vision tower reads, as a checkpoint's image processor says."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmcli.hub.fields import Fields
from mmcli.hub.json_files import read_json

# What checkpoints leave out, by transformers' image processors of SigLIP and those made after it.
ABSENT: dict[str, Any] = {
    "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": 0.5, "image_std": 0.5,
}  # fmt: skip


@dataclass(frozen=True)
class PixelValues:
    """Every value times `factor`, less its channel's `mean`, by its `std`: rounded to float32 after each step."""

    factor: float = 1 / 255
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    @classmethod
    def read(cls, raw: Fields) -> "PixelValues":
        """From the fields of an image processor; `raw.otherwise` holds what may be left out. Raises ModelError."""
        normalises = raw.flag("do_normalize")
        return cls(
            factor=raw.number("rescale_factor", -1e6, 1e6) if raw.flag("do_rescale") else 1.0,
            mean=_channels(raw, "image_mean") if normalises else (0.0,) * 3,
            std=_channels(raw, "image_std") if normalises else (1.0,) * 3,
        )

    @cached_property
    def _table(self) -> np.ndarray:
        """What each of 256 values becomes in each channel, float32 [3, 256]."""
        numbers = (np.arange(256, dtype=np.float64) * self.factor).astype(np.float32)
        mean, std = (np.array(values, dtype=np.float32)[:, None] for values in (self.mean, self.std))
        return (numbers - mean) / std

    def of(self, image: Image.Image) -> np.ndarray:
        """RGB image → float32 [3, height, width]. ValueError for an image in other colours."""
        if image.mode != "RGB":
            raise ValueError(f"expected an RGB image, got {image.mode}")
        pixels, values = np.asarray(image), np.empty((3, image.height, image.width), np.float32)
        for channel, table in enumerate(self._table):  # "clip": nothing is checked, 8 bits are always in the table
            np.take(table, pixels[..., channel], out=values[channel], mode="clip")
        return values


def image_fields(folder: Path, absent: Mapping[str, Any]) -> Fields:
    """What a checkpoint says about its images: in processor_config.json, else in preprocessor_config.json.

    What it leaves out has its value in `absent`. Raises ModelError where neither file is there or one is damaged.
    """
    whole = processor_fields(folder)
    if "image_processor" in whole:
        return whole.part("image_processor", absent)
    path = folder / "preprocessor_config.json"
    return Fields(read_json(path), str(path), absent)


def processor_fields(folder: Path) -> Fields:
    """processor_config.json, or nothing where a checkpoint has none. Raises ModelError where it is damaged."""
    path = folder / "processor_config.json"
    return Fields(read_json(path) if path.is_file() else {}, str(path))


def _channels(raw: Fields, key: str) -> tuple[float, ...]:
    """A number for each of red, green and blue, which one may stand for; a deviation is not 0."""
    low = 1e-6 if key == "image_std" else -1e6
    if isinstance(raw.get(key), list):
        return raw.numbers(key, low, 1e6, longest=3, length=3)
    return (raw.number(key, low, 1e6),) * 3
