"""How a MiniCPM-V turns pixels into numbers: what preprocessor_config.json says, where there is one."""

from pathlib import Path
from typing import Any

from mmcli.errors import ModelError
from mmcli.hub.fields import Fields, shown
from mmcli.hub.json_files import read_json
from mmcli.hub.pixel_values import PixelValues
from mmcli.models.minicpmv.config import MiniCPMVConfig

HALVES = (0.5, 0.5, 0.5)


def read_settings(folder: Path, config: MiniCPMVConfig) -> PixelValues:
    """Mean and deviation of a checkpoint; 1.0 and 2.0 have no file.

    Raises ModelError where a file contradicts config.json.
    """
    path = folder / "preprocessor_config.json"
    raw = Fields(read_json(path) if path.is_file() else {}, str(path), {"norm_mean": HALVES, "norm_std": HALVES})
    slicing = config.slicing
    same: dict[str, Any] = {
        "image_feature_size": config.resampler.queries, "slice_mode": slicing is not None,
        "use_image_id": config.own_slice_marks, "patch_size": config.vision.patch_size,
    }  # fmt: skip
    if slicing:
        same |= {"max_slice_nums": slicing.most, "scale_resolution": slicing.side}
    for key, value in same.items():
        if raw.get(key) not in (None, value):
            raise ModelError(f"{path} sets {key} to {shown(raw.get(key))}, but by config.json it is {shown(value)}")
    return PixelValues(
        mean=raw.numbers("norm_mean", -1e6, 1e6, longest=3, length=3),
        std=raw.numbers("norm_std", 1e-6, 1e6, longest=3, length=3),
    )
