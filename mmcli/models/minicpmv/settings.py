"""How a MiniCPM-V turns pixels into numbers: what preprocessor_config.json says, where there is one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmcli.errors import ModelError
from mmcli.hub.fields import Fields, shown
from mmcli.hub.json_files import read_json
from mmcli.models.minicpmv.config import MiniCPMVConfig


@dataclass(frozen=True)
class PixelSettings:
    """Mean and deviation of each channel, of numbers from 0 to 1."""

    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    @classmethod
    def open(cls, folder: Path, config: MiniCPMVConfig) -> "PixelSettings":
        """Read a checkpoint's settings; 2.0 has none. Raises ModelError where they contradict its config.json."""
        path = folder / "preprocessor_config.json"
        if not path.is_file():
            return cls()
        raw = Fields(read_json(path), str(path), {"norm_mean": cls.mean, "norm_std": cls.std})
        slicing = config.slicing
        same: dict[str, Any] = {
            "max_slice_nums": slicing.most, "scale_resolution": slicing.side, "patch_size": slicing.patch,
            "image_feature_size": config.resampler.queries, "slice_mode": True,
            "use_image_id": config.own_slice_marks,
        }  # fmt: skip
        for key, value in same.items():
            if raw.get(key) not in (None, value):
                raise ModelError(f"{path} sets {key} to {shown(raw.get(key))}, but by config.json it is {shown(value)}")
        return cls(
            raw.numbers("norm_mean", -1e6, 1e6, longest=3, length=3),
            raw.numbers("norm_std", 1e-6, 1e6, longest=3, length=3),
        )

    def pixels(self, image: Image.Image) -> np.ndarray:
        """RGB image → float32 [3, height, width]."""
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        numbers = (np.asarray(image, np.float32) / np.float32(255) - mean) / std
        return np.ascontiguousarray(numbers.transpose(2, 0, 1))
