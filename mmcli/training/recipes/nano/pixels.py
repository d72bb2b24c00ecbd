"""All training images on the device, and crops of them cut there."""

import io
import math
import mmap
import zipfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mmcli.training.recipes.nano.annotations import Photo

STORED = 320  # pixels; images are kept squeezed to this square
MAP = 128


class Crops(Protocol):
    """What a batch says of the images that it shows, as `packing.Batch` does."""

    @property
    def photo(self) -> Tensor: ...
    @property
    def window(self) -> Tensor: ...
    @property
    def flipped(self) -> Tensor: ...
    @property
    def mosaic(self) -> Tensor: ...


class Outlined(Protocol):
    """… and of the masks in them."""

    @property
    def masks(self) -> Tensor: ...
    @property
    def mask_windows(self) -> Tensor: ...
    @property
    def turned(self) -> Tensor: ...


def _share(shape: tuple[int, ...], fill: int) -> np.ndarray:
    """An array that child processes fill in place."""
    shared = np.frombuffer(mmap.mmap(-1, math.prod(shape)), dtype=np.uint8).reshape(shape)
    shared[:] = fill
    return shared


_images: np.ndarray  # what a process of the pool fills
_maps: np.ndarray


def _begin(images: np.ndarray, maps: np.ndarray) -> None:
    global _images, _maps
    _images, _maps = images, maps


def _read(job: tuple[str, str, list[tuple[int, str]]]) -> None:
    archive, kind, names = job
    with zipfile.ZipFile(archive) as files:
        inside = {Path(n).stem: n for n in files.namelist()}
        for number, name in names:
            if Path(name).stem not in inside:
                continue
            image: Image.Image = Image.open(io.BytesIO(files.read(inside[Path(name).stem])))
            if kind == "photo":
                image = image.convert("RGB").resize((STORED, STORED), Image.Resampling.BICUBIC)
                _images[number] = np.asarray(image).transpose(2, 0, 1)
            else:
                _maps[number] = np.asarray(image)


def load(photos: list[Photo], folder: Path, workers: int) -> tuple[Tensor, Tensor]:
    """Images [count, 3, 320, 320] and class maps [count, 128, 128], both uint8 on the CPU."""
    jobs = []
    numbered = list(enumerate(photos))
    for start in range(0, len(photos), 500):
        part = numbered[start : start + 500]
        for archive in sorted({p.archive for _, p in part}):
            jobs.append((str(folder / archive), "photo", [(i, p.file) for i, p in part if p.archive == archive]))
        jobs.append((str(folder / "class_maps.zip"), "map", [(i, p.file) for i, p in part]))
    shared = _share((len(photos), 3, STORED, STORED), 0), _share((len(photos), MAP, MAP), 255)  # 255: no map
    # Forked, so that the arrays are the children's too.
    with ProcessPoolExecutor(max(1, workers), get_context("fork"), _begin, shared) as pool:
        list(pool.map(_read, jobs))
    images, maps = (torch.from_numpy(array) for array in shared)
    return images, maps


def crop(images: Tensor, maps: Tensor, batch: Crops, side: int, map_side: int) -> tuple[Tensor, Tensor]:
    """Cut the batch's windows: pixels [B, 3, side, side] in 0..1, jittered, and class maps [B, map_side, map_side].

    Beyond the image's edge it is grey; the map there is background.
    """
    x, labels = _cut(images, maps, batch.photo[:, 0], batch.window[:, 0], batch.flipped[:, 0], side, map_side)
    rows = batch.mosaic.nonzero().flatten()
    if len(rows):
        photo, window, flipped = (field[rows].flatten(0, 1) for field in (batch.photo, batch.window, batch.flipped))
        parts, part_maps = _cut(images, maps, photo, window, flipped, side // 2, map_side // 2)
        x[rows] = _mosaic(parts)
        labels[rows] = _mosaic(part_maps[:, None])[:, 0]
    return _jitter(x), labels


def _cut(
    images: Tensor, maps: Tensor, photo: Tensor, window: Tensor, flipped: Tensor, side: int, map_side: int
) -> tuple[Tensor, Tensor]:
    grey = 114 / 255
    x = images[photo].float() / 255 - grey
    x = F.grid_sample(x, _grid(window, flipped, side), mode="bilinear", align_corners=False) + grey
    m = maps[photo]
    missing = (m == 255).all(-1).all(-1)
    labels = F.grid_sample(m[:, None].float(), _grid(window, flipped, map_side), mode="nearest", align_corners=False)
    labels = labels[:, 0].long()
    labels[missing] = 255
    return x, labels


def _mosaic(parts: Tensor) -> Tensor:
    """[4·R, C, s, s] → [R, C, 2·s, 2·s]: two rows of two."""
    return parts.unflatten(0, (-1, 2, 2)).permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def outlines(masks: Tensor, batch: Outlined) -> Tensor:
    """What a batch's boxes show of their masks [B, MAX_MASKS, 64, 64] in 0..1; masks uint8 [count, 64, 64]."""
    own = masks[batch.masks.clamp(min=0)].float() / 255
    own = torch.where(batch.turned[..., None, None], own.flip(-1), own).flatten(0, 1)[:, None]
    places = _grid(batch.mask_windows.flatten(0, 1), torch.zeros_like(batch.turned).flatten(), own.shape[-1])
    return F.grid_sample(own, places, align_corners=False)[:, 0].unflatten(0, batch.masks.shape)


def _grid(window: Tensor, flipped: Tensor, side: int) -> Tensor:
    steps = (torch.arange(side, device=window.device) + 0.5) / side
    across = torch.where(flipped[:, None], 1 - steps, steps)
    x = window[:, 0:1] + across * (window[:, 2:3] - window[:, 0:1])
    y = window[:, 1:2] + steps * (window[:, 3:4] - window[:, 1:2])
    grid = torch.stack((x[:, None, :].expand(-1, side, -1), y[:, :, None].expand(-1, -1, side)), -1)
    return grid * 2 - 1


def _jitter(x: Tensor) -> Tensor:
    """Brightness, contrast, saturation and tint, each a little; one image in twelve loses its colours."""

    def draw(low: float, high: float, channels: int = 1) -> Tensor:
        return torch.empty(len(x), channels, 1, 1, device=x.device).uniform_(low, high)

    grey = x.mean(1, keepdim=True)
    saturation = draw(0.6, 1.4) * (draw(0, 1) > 0.08)
    x = grey + (x - grey) * saturation
    mean = x.mean((1, 2, 3), keepdim=True)
    x = (x - mean) * draw(0.7, 1.3) + mean
    return (x * draw(0.75, 1.25) * draw(0.93, 1.07, 3)).clamp(0, 1)
