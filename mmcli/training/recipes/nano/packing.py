"""Pack several questions about one crop into a row of tokens, and rows into batches."""

import random
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import IterableDataset

from mmcli.decode import CODES
from mmcli.models.nano.config import NanoConfig
from mmcli.training.recipes.nano import prompts
from mmcli.training.recipes.nano.annotations import COCO_CLASSES, KNOWN_TO_DETECTOR, Photo

LENGTH = 176  # text tokens of a row
BOXES = 64  # objects of a row that are sent to the device
MAX_MASKS = 6  # masks that a row's answers may hold
PREFIX, SUFFIX = 0, 1
NONE = -1  # no target here
PLAIN, KNOWN, LAYOUT = 0, 1, 2  # a photograph; one that the detector was trained on; boxes without an image
NUMBER = {label: i for i, label in enumerate(COCO_CLASSES)}
# How much more often images come: COCO photographs with every box, images with sentences by people, and both.
EVERY_BOX, CAPTIONED, BOTH = 1.6, 1.2, 3.0
LAYOUT_SHARE = 0.06  # of the rows
MOSAIC_SHARE = 0.3  # … that are four images in one
TILES = 4
MASK_PRIORITY = 0.6  # share of rows in which questions for masks get room before others
WORD_NOISE = 0.2  # share of a sentence's words that are read wrongly while it is learned


@dataclass
class Batch:
    """Rows of one batch; the image itself is cut on the device from `photo`, `window` and `flipped`.

    A row shows one image, the first of its tiles, or all four in two rows of two.
    """

    photo: Tensor  # [B, TILES] numbers of the images
    window: Tensor  # [B, TILES, 4] x0, y0, x1, y1 in 0..1 of the image
    flipped: Tensor  # [B, TILES]
    mosaic: Tensor  # [B] whether all tiles are shown
    kind: Tensor  # [B] PLAIN, KNOWN or LAYOUT
    boxes: Tensor  # [B, BOXES, 4] objects of the detector's classes in the crop
    labels: Tensor  # [B, BOXES] their classes, NONE where there is no more
    known: Tensor  # [B, 80] of which classes these are all that the crop shows
    mask_boxes: Tensor  # [B, MAX_MASKS, 4] boxes of the masks that answers hold
    masks: Tensor  # [B, MAX_MASKS] numbers of these masks, NONE where there is no more
    mask_windows: Tensor  # [B, MAX_MASKS, 4] what these boxes show of them
    turned: Tensor  # [B, MAX_MASKS] whether they are flipped
    tokens: Tensor  # [B, T]
    question: Tensor  # [B, T] which question a token belongs to; 0 = padding
    part: Tensor  # [B, T] PREFIX or SUFFIX
    position: Tensor  # [B, T] counted on from the soft tokens
    target: Tensor  # [B, T] the next token where it is to be learned, else NONE
    weight: Tensor  # [B, T]
    cell: Tensor  # [B, T] 1 + 16 × mask + code where the next token is that mask code, else 0
    sentence: Tensor  # [B, T] whether the next token is a sentence's


class Questions(IterableDataset):
    """An endless stream of batches; every worker draws its own."""

    def __init__(
        self,
        photos: list[Photo],
        layouts: list[Photo],
        tokenizer: str,
        config: NanoConfig,
        batch: int,
        seed: int,
        mosaic: float = MOSAIC_SHARE,
    ):
        self.photos = photos + layouts
        self.images = len(photos)
        self.tokenizer_json = tokenizer
        self.config = config
        self.batch = batch
        self.seed = seed
        self.mosaic = mosaic
        count: dict[str, int] = {}
        for photo in photos:
            for obj in photo.objects:
                count[obj.label] = count.get(obj.label, 0) + 1
        # Classes are asked for by the root of how few boxes they have.
        self.rarity = {label: n**-0.5 for label, n in count.items()}
        weights = np.array([max((self.rarity[t.label] for t in p.objects), default=0.01) for p in photos])
        weights = np.clip(weights, 0.010, 0.07)  # a rare object's image comes at most seven times as often
        weights *= [self._favour(p) for p in photos]
        share = weights.sum() * LAYOUT_SHARE / (1 - LAYOUT_SHARE)
        weights = np.concatenate((weights, np.full(len(layouts), share / max(1, len(layouts)))))
        self.cumulative = (weights / weights.sum()).cumsum()

    @staticmethod
    def _favour(photo: Photo) -> float:
        every_box = len(photo.complete) >= len(COCO_CLASSES)
        return (
            BOTH if every_box and photo.captions else EVERY_BOX if every_box else CAPTIONED if photo.captions else 1.0
        )

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
            "photo": np.zeros((size, TILES), np.int64),
            "window": np.tile(np.array([0, 0, 1, 1], np.float32), (size, TILES, 1)),
            "flipped": np.zeros((size, TILES), bool),
            "mosaic": np.zeros(size, bool),
            "kind": np.zeros(size, np.int64),
            "boxes": np.zeros((size, BOXES, 4), np.float32),
            "labels": np.full((size, BOXES), NONE),
            "known": np.zeros((size, len(COCO_CLASSES)), bool),
            "mask_boxes": np.tile(np.array([0, 0, 1, 1], np.float32), (size, MAX_MASKS, 1)),
            "masks": np.full((size, MAX_MASKS), NONE),
            "mask_windows": np.tile(np.array([0, 0, 1, 1], np.float32), (size, MAX_MASKS, 1)),
            "turned": np.zeros((size, MAX_MASKS), bool),
            "tokens": np.full((size, length), self.config.pad_token),
            "question": np.zeros((size, length), np.int64),
            "part": np.zeros((size, length), np.int64),
            "position": np.zeros((size, length), np.int64),
            "target": np.full((size, length), NONE),
            "weight": np.zeros((size, length), np.float32),
            "cell": np.zeros((size, length), np.int64),
            "sentence": np.zeros((size, length), bool),
        }
        for row in range(size):
            index = self._draw()
            layout = index >= self.images
            mosaic = not layout and self.rng.random() < self.mosaic
            tiles = [index]
            while mosaic and len(tiles) < TILES:
                if (more := self._draw()) < self.images:
                    tiles.append(more)
            parts = []
            for tile, number in enumerate(tiles):
                window, flipped = (0.0, 0.0, 1.0, 1.0) if layout else self._window(), self.rng.random() < 0.5
                b["photo"][row, tile], b["window"][row, tile] = 0 if layout else number, window
                b["flipped"][row, tile] = flipped
                parts.append(prompts.see(self.photos[number], window, flipped))
            seen = prompts.beside(parts) if mosaic else parts[0]
            b["mosaic"][row] = mosaic
            known = any(self.photos[number].source in KNOWN_TO_DETECTOR for number in tiles)
            b["kind"][row] = LAYOUT if layout else KNOWN if known else PLAIN
            named = [(obj.box, NUMBER[obj.label]) for obj in seen.objects if obj.label in NUMBER][:BOXES]
            if named:
                b["boxes"][row, : len(named)] = [box for box, _ in named]
                b["labels"][row, : len(named)] = [number for _, number in named]
            sure = (seen.photo.complete | set(seen.photo.absent)) - seen.doubtful
            b["known"][row] = [label in sure for label in COCO_CLASSES]
            self._fill(b, row, seen, layout)
        return Batch(**{name: torch.from_numpy(array) for name, array in b.items()})

    def _draw(self) -> int:
        return min(int(np.searchsorted(self.cumulative, self.rng.random())), len(self.photos) - 1)

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
            if at + n > LENGTH or masks + len(own) > MAX_MASKS:
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
            b["sentence"][row, first : at + n] = weight < 0
            if own:
                codes = np.array([i for i, token in enumerate(suffix) if token == self.config.seg_token])
                later = np.arange(len(codes)) % CODES > 0
                b["weight"][row, first + codes[later]] = 0.0  # the mask head writes them; the first says that they come
                b["cell"][row, first + codes] = 1 + masks * CODES + np.arange(len(codes))
                missed = np.array([not mask.exact for mask in own]).nonzero()[0]
                corners = (codes[missed * CODES, None] + np.arange(-4, 0)).flatten()
                b["weight"][row, first + corners] = 0.0  # places that are off are not to be learned
                for mask in own:
                    b["mask_boxes"][row, masks], b["masks"][row, masks] = mask.box, mask.number
                    b["turned"][row, masks], b["mask_windows"][row, masks] = mask.flipped, mask.window
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
        """Tokens of an answer, and which of them decide whether one more object is there."""
        tokens: list[int] = []
        decisive: list[bool] = []
        places = any(not isinstance(piece, str) for piece in pieces) or not pieces
        for piece in pieces:
            if isinstance(piece, prompts.Mask):
                ids = self._loc(tuple(piece.box)) + [self.config.seg_token] * CODES  # the device knows the codes
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
        there = sorted({obj.label for obj in seen.objects} - seen.doubtful)
        absent = list(seen.photo.absent)
        asked: list[tuple[str, list, float]] = []

        def some(labels: list[str]) -> str:
            return rng.choices(labels, [self.rarity.get(label, 0.2) for label in labels])[0]

        for _ in range(min(6, 1 + len(there))) if there else ():
            asked.append((*prompts.detect(seen, [some(there)], self._loc), 1.0))
        if not layout:
            masked = sorted({obj.label for obj in seen.objects if obj.mask >= 0} - seen.doubtful)
            wanted = [some(masked) for _ in range(2)] if masked else []
            for label in wanted + ["person"] * ("person" in masked):
                if (mask := prompts.segment(seen, label, rng)) is not None:
                    asked.append((*mask, 1.0))
            if absent and rng.random() < 0.3:
                asked.append((f"segment {self._missing(absent)}", [], 1.0))
        for _ in range(4 if absent else 0):
            asked.append((*prompts.detect(seen, [self._missing(absent)], self._loc), 1.0))
        if rng.random() < 0.4:
            several = {some(there) for _ in range(rng.randint(1, 5))} if there else set()
            several |= {self._missing(absent) for _ in range(rng.randint(0, 4))} if absent else set()
            if len(several) > 1:
                asked.append((*prompts.detect(seen, rng.sample(sorted(several), len(several)), self._loc), 1.0))
        sentences: list[tuple[str, list, float]] = []
        if seen.photo.source == prompts.MOSAIC:
            return self._in_turn(asked, sentences)
        for _ in range(3 if layout or seen.photo.captions else 1):
            if (sentence := prompts.caption(seen, rng)) is not None and self._whole(sentence[0]):
                sentences.append(("caption en", [sentence[0]], -sentence[1]))
        if (words := prompts.plain_words(seen)) is not None and rng.random() < 0.5:
            sentences.append(("describe en", [words], 0.4))
        for _ in range(3):
            if (pair := prompts.answer(seen, rng, absent)) is not None:
                sentences.append((f"answer en {pair[0]}", [pair[1]], 1.0))
        return self._in_turn(asked, sentences)

    def _in_turn(self, asked: list[tuple[str, list, float]], sentences: list[tuple[str, list, float]]) -> list:
        """Each question once, in any order."""
        sentences = list({(question[0], *question[1]): question for question in sentences}.values())
        asked = list({question[0]: question for question in asked}.values()) + sentences
        self.rng.shuffle(asked)
        if self.rng.random() < MASK_PRIORITY:
            asked.sort(key=lambda question: not question[0].startswith("segment"))
        return asked

    def _whole(self, sentence: str) -> bool:
        """Whether a sentence is written with whole words alone."""
        ids = self.ids(sentence)
        (begin, middle), (low, high) = self.config.first_words, self.config.later_words
        return bool(ids) and begin <= ids[0] < middle and all(low <= i < high for i in ids[1:])

    def _missing(self, absent: list[str]) -> str:
        """Absent objects, the common ones more often: those are what people ask for and what gets confused."""
        common = [label for label in absent if label in COMMON]
        return self.rng.choice(common if common and self.rng.random() < 0.5 else absent)

    def _loc(self, box: tuple[float, ...]) -> list[int]:
        x0, y0, x1, y1 = (min(1023, max(0, round(v * 1023))) + self.config.loc_token for v in box)
        return [y0, x0, y1, x1]


COMMON = frozenset(COCO_CLASSES[:8] + COCO_CLASSES[13:22]) | frozenset(
    ("chair", "couch", "bottle", "book", "potted plant", "cup", "umbrella")
    + ("bag", "handbag", "shoe", "raccoon", "kangaroo")
)  # what people ask for, and what gets confused
