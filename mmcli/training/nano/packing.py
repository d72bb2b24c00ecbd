"""Pack several questions about one crop into a row of tokens, and rows into batches."""

import random
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import IterableDataset

from mmcli.models.nano.config import NanoConfig
from mmcli.training.nano import prompts
from mmcli.training.nano.annotations import COCO_CLASSES, Photo

LENGTH = 144  # text tokens of a row
PREFIX, SUFFIX = 0, 1
NONE = -1  # no target here


@dataclass
class Batch:
    """Rows of one batch; the picture itself is cut on the device from `photo`, `window` and `flipped`."""

    photo: Tensor  # [B] number of the picture
    window: Tensor  # [B, 4] x0, y0, x1, y1 in 0..1 of the picture
    flipped: Tensor  # [B]
    tokens: Tensor  # [B, T]
    question: Tensor  # [B, T] which question a token belongs to; 0 = padding
    part: Tensor  # [B, T] PREFIX or SUFFIX
    position: Tensor  # [B, T] counted on from the soft tokens
    target: Tensor  # [B, T] the next token where it is to be learned, else NONE
    weight: Tensor  # [B, T]


class Questions(IterableDataset):
    """An endless stream of batches; every worker draws its own."""

    def __init__(
        self, photos: list[Photo], codes: np.ndarray, tokenizer: str, config: NanoConfig, batch: int, seed: int
    ):
        self.photos = photos
        self.codes = codes  # [masks, 2 (as it is, flipped), 16]
        self.tokenizer_json = tokenizer
        self.config = config
        self.batch = batch
        self.seed = seed
        count: dict[str, int] = {}
        for photo in photos:
            for label in {t.label for t in photo.things}:
                count[label] = count.get(label, 0) + 1
        self.rarity = {label: n**-0.5 for label, n in count.items()}
        weights = np.array([max((self.rarity[t.label] for t in p.things), default=0.015) for p in photos])
        weights = np.clip(weights, 0.012, 0.10)  # a rare thing's picture comes at most about eight times as often
        self.cumulative = (weights / weights.sum()).cumsum()

    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        self.rng = random.Random(f"{self.seed}/{worker.id if worker else 0}")
        self.tokenizer = Tokenizer.from_str(self.tokenizer_json)
        self.ids = lru_cache(200_000)(lambda text: self.tokenizer.encode(text, add_special_tokens=False).ids)
        self.newline = self.ids("\n")
        while True:
            yield self._batch()

    def _batch(self) -> Batch:
        size, length = self.batch, LENGTH
        b = Batch(
            torch.zeros(size, dtype=torch.long),
            torch.zeros(size, 4),
            torch.zeros(size, dtype=torch.bool),
            torch.full((size, length), self.config.pad_token),
            torch.zeros(size, length, dtype=torch.long),
            torch.zeros(size, length, dtype=torch.long),
            torch.zeros(size, length, dtype=torch.long),
            torch.full((size, length), NONE),
            torch.zeros(size, length),
        )
        for row in range(size):
            index = int(np.searchsorted(self.cumulative, self.rng.random()))
            photo = self.photos[min(index, len(self.photos) - 1)]
            window, flipped = self._window(), self.rng.random() < 0.5
            b.photo[row], b.window[row], b.flipped[row] = index, torch.tensor(window), flipped
            self._fill(b, row, prompts.see(photo, window, flipped))
        return b

    def _window(self) -> tuple[float, float, float, float]:
        kind = self.rng.random()
        if kind < 0.25:
            return 0.0, 0.0, 1.0, 1.0
        if kind < 0.38:  # farther away, on grey
            width, height = self.rng.uniform(1.0, 1.7), self.rng.uniform(1.0, 1.7)
        else:
            area, aspect = self.rng.uniform(0.3, 1.0), np.exp(self.rng.uniform(-0.35, 0.35))
            width, height = min(1.0, (area * aspect) ** 0.5), min(1.0, (area / aspect) ** 0.5)
        x0, y0 = (
            self.rng.uniform(min(0, 1 - width), max(0, 1 - width)),
            self.rng.uniform(min(0, 1 - height), max(0, 1 - height)),
        )
        return x0, y0, x0 + width, y0 + height

    def _fill(self, b: Batch, row: int, seen: prompts.Seen) -> None:
        asked = self._ask(seen)
        at, number = 0, 0
        for question, pieces, weight in asked:
            prefix = [self.config.bos_token, *self.ids(question), *self.newline]
            suffix, decisive = self._suffix(pieces)
            tokens = prefix + suffix
            n = len(tokens) - 1  # the last token is only a target
            if at + n > LENGTH:
                continue
            number += 1
            here = slice(at, at + n)
            b.tokens[row, here] = torch.tensor(tokens[:-1])
            b.question[row, here] = number
            b.part[row, at + len(prefix) : at + n] = SUFFIX
            b.position[row, here] = torch.arange(n) + self.config.soft_tokens
            first = at + len(prefix) - 1
            b.target[row, first : at + n] = torch.tensor(suffix)
            b.weight[row, first : at + n] = torch.tensor([weight * (2.0 if d else 1.0) for d in decisive])
            at += n

    def _suffix(self, pieces: list) -> tuple[list[int], list[bool]]:
        """Tokens of an answer, and which of them decide whether one more thing is there."""
        tokens: list[int] = []
        decisive: list[bool] = []
        places = any(not isinstance(piece, str) for piece in pieces) or not pieces
        for piece in pieces:
            ids = self.ids(piece) if isinstance(piece, str) else piece
            tokens += ids
            decisive += [False] * len(ids)
            if places and isinstance(piece, str) and piece.endswith(";"):
                decisive[-1] = True
        if places:
            decisive = [True, *decisive[1:], True] if decisive else [True]
        else:
            decisive.append(False)
        return [*tokens, self.config.eos_token], decisive

    def _ask(self, seen: prompts.Seen) -> list[tuple[str, list, float]]:
        """Questions in the order in which they get room."""
        rng = self.rng
        there = sorted({label for label, _, _ in seen.things} - seen.doubtful)
        absent = list(seen.photo.absent)
        asked: list[tuple[str, list, float]] = []

        def some(labels: list[str]) -> str:
            return rng.choices(labels, [self.rarity.get(label, 1.0) for label in labels])[0]

        for _ in range(2 if there else 0):
            label = some(there)
            asked.append((*prompts.detect(seen, [label], self._loc), 1.0))
            if (mask := prompts.segment(seen, some(there), self._loc, self._codes)) is not None:
                asked.append((*mask, 1.0))
        for _ in range(2 if absent else 0):
            asked.append((*prompts.detect(seen, [self._missing(absent)], self._loc), 1.0))
        if absent and rng.random() < 0.4:
            asked.append((f"segment {self._missing(absent)}", [], 1.0))
        several = {some(there) for _ in range(rng.randint(1, 3))} if there else set()
        several |= {self._missing(absent) for _ in range(rng.randint(0, 2))} if absent else set()
        if len(several) > 1:
            asked.append((*prompts.detect(seen, rng.sample(sorted(several), len(several)), self._loc), 1.0))
        if (text := prompts.caption(seen, rng)) is not None:
            # Sentences by people come five to a picture, plain words say little new: the former weigh more.
            asked.append((rng.choice(("caption en", "caption en", "caption en", "describe en")), [text], 0.6))
        for _ in range(2):
            if (pair := prompts.answer(seen, rng, absent)) is not None:
                asked.append((f"answer en {pair[0]}", [pair[1]], 1.0))
        asked = list({question[0]: question for question in asked}.values())  # each question once
        rng.shuffle(asked)
        return asked

    def _missing(self, absent: list[str]) -> str:
        """Absent things, the common ones more often: those are what people ask for and what gets confused."""
        common = [label for label in absent if label in COMMON]
        return self.rng.choice(common if common and self.rng.random() < 0.5 else absent)

    def _loc(self, box: tuple[float, ...]) -> list[int]:
        x0, y0, x1, y1 = (min(1023, max(0, round(v * 1023))) + self.config.loc_token for v in box)
        return [y0, x0, y1, x1]

    def _codes(self, mask: int, flipped: bool) -> list[int]:
        return [int(c) + self.config.seg_token for c in self.codes[mask, int(flipped)]]


COMMON = frozenset(COCO_CLASSES[:8] + COCO_CLASSES[13:22]) | frozenset(
    ("chair", "couch", "bottle", "book", "potted plant", "cup", "umbrella")
    + ("bag", "handbag", "shoe", "raccoon", "kangaroo")
)  # what people ask for, and what gets confused
