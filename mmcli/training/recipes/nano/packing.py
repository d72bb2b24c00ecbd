"""Pack several questions about one crop into a row of tokens, and rows into batches."""

import random
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import IterableDataset

from mmcli.models.nano.config import MASK_CODES, NanoConfig
from mmcli.training.recipes.nano import prompts
from mmcli.training.recipes.nano.annotations import COCO_CLASSES, KNOWN_TO_DETECTOR, Photo

LENGTH = 128  # text tokens of a row
BOXES = 48  # things of a row that the device is told of
MASKS = 4  # masks that a row's answers may hold
PREFIX, SUFFIX = 0, 1
NONE = -1  # no target here
PLAIN, KNOWN, LAYOUT = 0, 1, 2  # a photograph; one that the detector was trained on; boxes without a picture
NUMBER = {label: i for i, label in enumerate(COCO_CLASSES)}
# How much more often pictures come: COCO photographs with every box, pictures with sentences by people, and both.
EVERY_BOX, TOLD, BOTH = 1.3, 1.5, 5.0
LAYOUT_SHARE = 0.10  # of the rows
WORD_NOISE = 0.15  # share of a sentence's words that are read wrongly while it is learned


@dataclass
class Batch:
    """Rows of one batch; the picture itself is cut on the device from `photo`, `window` and `flipped`."""

    photo: Tensor  # [B] number of the picture
    kind: Tensor  # [B] PLAIN, KNOWN or LAYOUT
    boxes: Tensor  # [B, BOXES, 4] things of the detector's classes in the crop
    labels: Tensor  # [B, BOXES] their classes, NONE where there is no more
    complete: Tensor  # [B] whether these are all that the crop shows
    mask_boxes: Tensor  # [B, MASKS, 4] boxes of the masks that answers hold
    masks: Tensor  # [B, MASKS] numbers of these masks, NONE where there is no more
    window: Tensor  # [B, 4] x0, y0, x1, y1 in 0..1 of the picture
    flipped: Tensor  # [B]
    tokens: Tensor  # [B, T]
    question: Tensor  # [B, T] which question a token belongs to; 0 = padding
    part: Tensor  # [B, T] PREFIX or SUFFIX
    position: Tensor  # [B, T] counted on from the soft tokens
    target: Tensor  # [B, T] the next token where it is to be learned, else NONE
    weight: Tensor  # [B, T]
    cell: Tensor  # [B, T] 1 + 16 × mask + code where the next token is that mask code, else 0


class Questions(IterableDataset):
    """An endless stream of batches; every worker draws its own."""

    def __init__(
        self,
        photos: list[Photo],
        layouts: list[Photo],
        codes: np.ndarray,
        tokenizer: str,
        config: NanoConfig,
        batch: int,
        seed: int,
    ):
        self.photos = photos + layouts
        self.pictures = len(photos)
        self.codes = codes  # [masks, 2 (as it is, flipped), 16]
        self.tokenizer_json = tokenizer
        self.config = config
        self.batch = batch
        self.seed = seed
        count: dict[str, int] = {}
        for photo in photos:
            for thing in photo.things:
                count[thing.label] = count.get(thing.label, 0) + 1
        # Classes are asked for by the root of how few boxes they have.
        self.rarity = {label: n**-0.5 for label, n in count.items()}
        weights = np.array([max((self.rarity[t.label] for t in p.things), default=0.01) for p in photos])
        weights = np.clip(weights, 0.010, 0.07)  # a rare thing's picture comes at most seven times as often
        weights *= [self._favour(p) for p in photos]
        share = weights.sum() * LAYOUT_SHARE / (1 - LAYOUT_SHARE)
        weights = np.concatenate((weights, np.full(len(layouts), share / max(1, len(layouts)))))
        self.cumulative = (weights / weights.sum()).cumsum()

    @staticmethod
    def _favour(photo: Photo) -> float:
        every_box = len(photo.complete) >= len(COCO_CLASSES)
        return BOTH if every_box and photo.captions else EVERY_BOX if every_box else TOLD if photo.captions else 1.0

    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        self.rng = random.Random(f"{self.seed}/{worker.id if worker else 0}")
        self.tokenizer = Tokenizer.from_str(self.tokenizer_json)
        self.ids = lru_cache(200_000)(lambda text: self.tokenizer.encode(text, add_special_tokens=False).ids)
        self.newline = self.ids("\n")
        while True:
            yield self._batch()

    def _batch(self) -> Batch:
        b: dict[str, np.ndarray]
        size, length = self.batch, LENGTH
        b = {
            "photo": np.zeros(size, np.int64),
            "window": np.zeros((size, 4), np.float32),
            "flipped": np.zeros(size, bool),
            "kind": np.zeros(size, np.int64),
            "boxes": np.zeros((size, BOXES, 4), np.float32),
            "labels": np.full((size, BOXES), NONE),
            "complete": np.zeros(size, bool),
            "mask_boxes": np.tile(np.array([0, 0, 1, 1], np.float32), (size, MASKS, 1)),
            "masks": np.full((size, MASKS), NONE),
            "tokens": np.full((size, length), self.config.pad_token),
            "question": np.zeros((size, length), np.int64),
            "part": np.zeros((size, length), np.int64),
            "position": np.zeros((size, length), np.int64),
            "target": np.full((size, length), NONE),
            "weight": np.zeros((size, length), np.float32),
            "cell": np.zeros((size, length), np.int64),
        }
        for row in range(size):
            index = min(int(np.searchsorted(self.cumulative, self.rng.random())), len(self.photos) - 1)
            photo = self.photos[index]
            layout = index >= self.pictures
            window, flipped = (0.0, 0.0, 1.0, 1.0) if layout else self._window(), self.rng.random() < 0.5
            b["photo"][row], b["window"][row], b["flipped"][row] = 0 if layout else index, window, flipped
            b["kind"][row] = LAYOUT if layout else KNOWN if photo.source in KNOWN_TO_DETECTOR else PLAIN
            seen = prompts.see(photo, window, flipped)
            named = [(box, NUMBER[label]) for label, box, _ in seen.things if label in NUMBER][:BOXES]
            if named:
                b["boxes"][row, : len(named)] = [box for box, _ in named]
                b["labels"][row, : len(named)] = [number for _, number in named]
            b["complete"][row] = len(photo.complete) >= len(COCO_CLASSES)
            self._fill(b, row, seen, layout)
        return Batch(**{name: torch.from_numpy(array) for name, array in b.items()})

    def _window(self) -> tuple[float, float, float, float]:
        kind = self.rng.random()
        if kind < 0.15:
            return 0.0, 0.0, 1.0, 1.0
        if kind < 0.28:  # farther away, on grey
            width, height = self.rng.uniform(1.0, 1.7), self.rng.uniform(1.0, 1.7)
        else:
            area, aspect = self.rng.uniform(0.2, 1.0), np.exp(self.rng.uniform(-0.5, 0.5))
            width, height = min(1.0, (area * aspect) ** 0.5), min(1.0, (area / aspect) ** 0.5)
        x0, y0 = (
            self.rng.uniform(min(0, 1 - width), max(0, 1 - width)),
            self.rng.uniform(min(0, 1 - height), max(0, 1 - height)),
        )
        return x0, y0, x0 + width, y0 + height

    def _fill(self, b: dict[str, np.ndarray], row: int, seen: prompts.Seen, layout: bool) -> None:
        at, number, masks = 0, 0, 0
        for question, pieces, weight in self._ask(seen, layout):
            prefix = [self.config.bos_token, *self.ids(question), *self.newline]
            suffix, decisive = self._suffix(pieces)
            tokens = prefix + suffix
            n = len(tokens) - 1  # the last token is only a target
            own = [piece for piece in pieces if isinstance(piece, prompts.Mask)]
            if at + n > LENGTH or masks + len(own) > MASKS:
                continue
            number += 1
            here = slice(at, at + n)
            b["tokens"][row, here] = self._misread(tokens[:-1], len(prefix)) if weight < 0 else tokens[:-1]
            b["question"][row, here] = number
            b["part"][row, at + len(prefix) : at + n] = SUFFIX
            b["position"][row, here] = np.arange(n) + self.config.soft_tokens
            first = at + len(prefix) - 1
            b["target"][row, first : at + n] = suffix
            b["weight"][row, first : at + n] = np.where(decisive, 2.0, 1.0) * abs(weight)
            if own:
                low = self.config.seg_token
                codes = [i for i, token in enumerate(suffix) if low <= token < low + MASK_CODES]
                b["cell"][row, first + np.array(codes)] = 1 + masks * 16 + np.arange(len(codes))
                for mask in own:
                    b["mask_boxes"][row, masks], b["masks"][row, masks] = mask.box, mask.number
                    masks += 1
            at += n

    def _misread(self, tokens: list[int], begin: int) -> list[int]:
        """A sentence as it is read while it is learned: some words are other ones, so that it is not known by heart."""
        low, high = self.config.later_words
        return [
            self.rng.randrange(low, high) if i >= begin and self.rng.random() < WORD_NOISE else token
            for i, token in enumerate(tokens)
        ]

    def _suffix(self, pieces: list) -> tuple[list[int], list[bool]]:
        """Tokens of an answer, and which of them decide whether one more thing is there."""
        tokens: list[int] = []
        decisive: list[bool] = []
        places = any(not isinstance(piece, str) for piece in pieces) or not pieces
        for piece in pieces:
            if isinstance(piece, prompts.Mask):
                ids = self._loc(tuple(piece.box)) + self._codes(piece.number, piece.flipped)
            else:
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

    def _ask(self, seen: prompts.Seen, layout: bool) -> list[tuple[str, list, float]]:
        """Questions with their answers and weights (negative: a sentence), in the order in which they get room."""
        rng = self.rng
        there = sorted({label for label, _, _ in seen.things} - seen.doubtful)
        absent = list(seen.photo.absent)
        asked: list[tuple[str, list, float]] = []

        def some(labels: list[str]) -> str:
            return rng.choices(labels, [self.rarity.get(label, 0.2) for label in labels])[0]

        for _ in range(min(5, 1 + len(there))) if there else ():
            asked.append((*prompts.detect(seen, [some(there)], self._loc), 1.0))
        if not layout:
            for _ in range(2 if there else 0):
                if (mask := prompts.segment(seen, some(there))) is not None:
                    asked.append((*mask, 1.0))
            if absent and rng.random() < 0.3:
                asked.append((f"segment {self._missing(absent)}", [], 1.0))
        for _ in range(3 if absent else 0):
            asked.append((*prompts.detect(seen, [self._missing(absent)], self._loc), 1.0))
        if rng.random() < 0.3:
            several = {some(there) for _ in range(rng.randint(1, 5))} if there else set()
            several |= {self._missing(absent) for _ in range(rng.randint(0, 3))} if absent else set()
            if len(several) > 1:
                asked.append((*prompts.detect(seen, rng.sample(sorted(several), len(several)), self._loc), 1.0))
        told: list[tuple[str, list, float]] = []
        for _ in range(2 if layout or seen.photo.captions else 1):
            if (sentence := prompts.caption(seen, rng)) is not None and self._whole(sentence[0]):
                told.append(("caption en", [sentence[0]], -sentence[1]))
        if (words := prompts.plain_words(seen)) is not None and rng.random() < 0.5:
            told.append(("describe en", [words], 0.4))
        for _ in range(3):
            if (pair := prompts.answer(seen, rng, absent)) is not None:
                told.append((f"answer en {pair[0]}", [pair[1]], 1.0))
        told = list({(question[0], *question[1]): question for question in told}.values())
        asked = list({question[0]: question for question in asked}.values()) + told  # each question once
        rng.shuffle(asked)
        return asked

    def _whole(self, sentence: str) -> bool:
        """Whether a sentence is written with whole words alone."""
        ids = self.ids(sentence)
        (begin, middle), (low, high) = self.config.first_words, self.config.later_words
        return bool(ids) and begin <= ids[0] < middle and all(low <= i < high for i in ids[1:])

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
