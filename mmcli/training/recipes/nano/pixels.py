"""All training pictures on the device, and crops of them cut there."""

import io
import zipfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mmcli.training.recipes.nano.annotations import Photo
from mmcli.training.recipes.nano.packing import Batch

STORED = 320  # pixels; pictures are kept squeezed to this square
MAP = 128


def _read(job: tuple[str, str, list[tuple[int, str]]]) -> list[tuple[int, np.ndarray]]:
    archive, kind, names = job
    out = []
    with zipfile.ZipFile(archive) as files:
        inside = {Path(n).stem: n for n in files.namelist()}
        for number, name in names:
            if Path(name).stem not in inside:
                continue
            image: Image.Image = Image.open(io.BytesIO(files.read(inside[Path(name).stem])))
            if kind == "photo":
                image = image.convert("RGB").resize((STORED, STORED), Image.Resampling.BICUBIC)
            out.append((number, np.array(image)))
    return out


def load(photos: list[Photo], folder: Path, workers: int) -> tuple[Tensor, Tensor]:
    """Pictures [count, 3, 320, 320] and class maps [count, 128, 128], both uint8 on the CPU."""
    jobs = []
    numbered = list(enumerate(photos))
    for start in range(0, len(photos), 500):
        part = numbered[start : start + 500]
        for archive in sorted({p.archive for _, p in part}):
            jobs.append((str(folder / archive), "photo", [(i, p.file) for i, p in part if p.archive == archive]))
        jobs.append((str(folder / "class_maps.zip"), "map", [(i, p.file) for i, p in part]))
    pictures = torch.zeros(len(photos), 3, STORED, STORED, dtype=torch.uint8)
    maps = torch.full((len(photos), MAP, MAP), 255, dtype=torch.uint8)  # 255: no map
    with ProcessPoolExecutor(max(1, workers)) as pool:
        for job, result in zip(jobs, pool.map(_read, jobs), strict=True):
            for number, array in result:
                if job[1] == "photo":
                    pictures[number] = torch.from_numpy(array).permute(2, 0, 1)
                else:
                    maps[number] = torch.from_numpy(array)
    return pictures, maps


def crop(pictures: Tensor, maps: Tensor, batch: Batch, side: int, map_side: int) -> tuple[Tensor, Tensor]:
    """Cut the batch's windows: pixels [B, 3, side, side] in 0..1, jittered, and class maps [B, map_side, map_side].

    Beyond the picture's edge it is grey; the map there is background.
    """
    window, flipped = batch.window, batch.flipped
    grey = 114 / 255
    x = pictures[batch.photo].float() / 255 - grey
    x = F.grid_sample(x, _grid(window, flipped, side), mode="bilinear", align_corners=False) + grey
    m = maps[batch.photo]
    missing = (m == 255).all(-1).all(-1)
    labels = F.grid_sample(m[:, None].float(), _grid(window, flipped, map_side), mode="nearest", align_corners=False)
    labels = labels[:, 0].long()
    labels[missing] = 255
    return _jitter(x), labels


def outlines(masks: Tensor, batch: Batch, side: int) -> Tensor:
    """The masks of a batch's answers [B, MASKS, side, side] in 0..1; masks uint8 [count, 64, 64]."""
    own = masks[batch.masks.clamp(min=0)].float() / 255
    own = torch.where(batch.flipped[:, None, None, None], own.flip(-1), own)
    return F.avg_pool2d(own, own.shape[-1] // side)


def _grid(window: Tensor, flipped: Tensor, side: int) -> Tensor:
    steps = (torch.arange(side, device=window.device) + 0.5) / side
    across = torch.where(flipped[:, None], 1 - steps, steps)
    x = window[:, 0:1] + across * (window[:, 2:3] - window[:, 0:1])
    y = window[:, 1:2] + steps * (window[:, 3:4] - window[:, 1:2])
    grid = torch.stack((x[:, None, :].expand(-1, side, -1), y[:, :, None].expand(-1, -1, side)), -1)
    return grid * 2 - 1


def _jitter(x: Tensor) -> Tensor:
    """Brightness, contrast, saturation and tint, each a little; one picture in twelve loses its colours."""

    def draw(low: float, high: float, channels: int = 1) -> Tensor:
        return torch.empty(len(x), channels, 1, 1, device=x.device).uniform_(low, high)

    grey = x.mean(1, keepdim=True)
    saturation = draw(0.6, 1.4) * (draw(0, 1) > 0.08)
    x = grey + (x - grey) * saturation
    mean = x.mean((1, 2, 3), keepdim=True)
    x = (x - mean) * draw(0.7, 1.3) + mean
    return (x * draw(0.75, 1.25) * draw(0.93, 1.07, 3)).clamp(0, 1)
