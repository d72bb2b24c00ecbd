"""Batches for the mask head: crops of photographs, boxes in them as a model finds them, and their masks there."""

import random
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import IterableDataset

from mmcli.models.nano.config import NanoConfig
from mmcli.training.recipes.nano import prompts
from mmcli.training.recipes.nano.annotations import Photo

BOXES = 4  # of a crop; an object may be asked for twice, in boxes that differ
WORDS = 12  # tokens of a prompt at most
CLASS_MAP = 0.35  # weight of a mask that was cut from a class map, beside one drawn by hand
LEAST = 0.02  # of the side: boxes that are narrower are left out
EXACT = 0.15  # share of the boxes that are the object's own
OFF = (0.01, 0.25)  # shares of the sides by which the others are off: each edge's deviation is drawn from this range
WHOLE, FARTHER = 0.3, 0.12  # share of the crops that are the image, and the image on grey


@dataclass
class MaskBatch:
    """Rows are crops; `pixels` cuts them and their masks on the device."""

    photo: Tensor  # [B, 1] numbers of the images
    window: Tensor  # [B, 1, 4] x0, y0, x1, y1 in 0..1 of the image
    flipped: Tensor  # [B, 1]
    mosaic: Tensor  # [B] False
    boxes: Tensor  # [B, BOXES, 4] in 0..1 of the crop, as they are asked about
    masks: Tensor  # [B, BOXES] numbers of the masks
    mask_windows: Tensor  # [B, BOXES, 4] what these boxes show of them
    turned: Tensor  # [B, BOXES] whether they are flipped
    tokens: Tensor  # [B, BOXES, WORDS] the prompts, padded on the left
    weight: Tensor  # [B, BOXES]


class MaskedCrops(IterableDataset):
    """An endless stream of batches; every worker draws its own."""

    def __init__(self, photos: list[Photo], tokenizer: str, config: NanoConfig, batch: int, seed: int):
        self.photos = photos
        self.tokenizer_json = tokenizer
        self.config = config
        self.batch = batch
        self.seed = seed
        worth = [min(BOXES, sum(_weight(p, i) for i, t in enumerate(p.objects) if t.mask >= 0)) for p in photos]
        self.cumulative = np.cumsum(worth) / np.sum(worth)

    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        self.rng = random.Random(f"{self.seed}/{worker.id if worker else 0}")
        self.tokenizer = Tokenizer.from_str(self.tokenizer_json)
        self.ids: dict[str, list[int]] = {}
        while True:
            yield self._batch()

    def _batch(self) -> MaskBatch:
        rows: list[tuple] = []
        while len(rows) < self.batch:
            if (row := self._row()) is not None:
                rows.append(row)
        photo, window, flipped, *masks = (np.stack(values) for values in zip(*rows, strict=True))
        parts = (
            photo[:, None],
            window[:, None].astype(np.float32),
            flipped[:, None],
            np.zeros(len(rows), bool),
            *masks,
        )
        return MaskBatch(*map(torch.from_numpy, parts))

    def _row(self) -> tuple | None:
        """The fields of one crop; None where it shows no object that has a mask."""
        number = min(int(np.searchsorted(self.cumulative, self.rng.random())), len(self.photos) - 1)
        photo, window, flipped = self.photos[number], self._window(), self.rng.random() < 0.5
        drawn = {obj.mask: _weight(photo, i) for i, obj in enumerate(photo.objects) if obj.mask >= 0}
        seen = prompts.see(photo, window, flipped)
        shown = [obj for obj in seen.objects if obj.mask >= 0 and (obj.box[2:] - obj.box[:2]).min() > LEAST]
        if not shown:
            return None
        chosen = self.rng.sample(shown, min(BOXES, len(shown)))
        chosen += self.rng.choices(shown, k=BOXES - len(chosen))
        boxes = np.stack([self._found(obj.box) for obj in chosen])
        whole = np.stack([obj.whole for obj in chosen])
        size = np.tile(whole[:, 2:] - whole[:, :2], 2)
        windows = (boxes - np.tile(whole[:, :2], 2)) / size
        return (
            np.int64(number),
            np.array(window),
            np.bool_(flipped),
            boxes.astype(np.float32),
            np.array([obj.mask for obj in chosen]),
            windows.astype(np.float32),
            np.array([obj.flipped for obj in chosen]),
            np.array([self._prompt(obj.label) for obj in chosen]),
            np.array([drawn[obj.mask] for obj in chosen], dtype=np.float32),
        )

    def _found(self, box: np.ndarray) -> np.ndarray:
        """The box, or one that is as wrong as found boxes are."""
        if self.rng.random() < EXACT:
            return box
        size, (low, high) = np.tile(box[2:] - box[:2], 2), np.log(OFF)
        moved = (box + size * [self.rng.gauss(0, np.exp(self.rng.uniform(low, high))) for _ in range(4)]).clip(0, 1)
        return box if (moved[2:] - moved[:2] < 0.5 * size[:2]).any() else moved

    def _window(self) -> tuple[float, float, float, float]:
        kind = self.rng.random()
        if kind < WHOLE:
            return 0.0, 0.0, 1.0, 1.0
        if kind < WHOLE + FARTHER:
            width, height = self.rng.uniform(1.0, 1.7), self.rng.uniform(1.0, 1.7)
        else:
            area, aspect = self.rng.uniform(0.2, 1.0), np.exp(self.rng.uniform(-0.5, 0.5))
            width, height = min(1.0, (area * aspect) ** 0.5), min(1.0, (area / aspect) ** 0.5)
        x0, y0 = (self.rng.uniform(min(0, 1 - side), max(0, 1 - side)) for side in (width, height))
        return x0, y0, x0 + width, y0 + height

    def _prompt(self, label: str) -> list[int]:
        if label not in self.ids:
            words = self.tokenizer.encode(f"segment {label}\n", add_special_tokens=False).ids
            ids = [self.config.bos_token, *words][:WORDS]
            self.ids[label] = [self.config.pad_token] * (WORDS - len(ids)) + ids
        return self.ids[label]


def _weight(photo: Photo, number: int) -> float:
    return 1.0 if number in photo.polygons else CLASS_MAP
