"""The smallest family that is unlike the others: patches of any aspect, cross-attention, a grammar of its own.

Its answers are nonsense (random weights); what matters is that nothing outside this folder knows it, but for one line
of the registry.
"""

import torch
from PIL import Image
from torch import Tensor, nn

from mmcli.engine.cross_attention import CrossAttentionKV
from mmcli.engine.inputs import Inputs, pad_left
from mmcli.engine.kv_cache import KVCache
from mmcli.engine.model import GenerativeModel
from mmcli.hub.weights import Rule
from mmcli.layers.attention import attend
from mmcli.layers.rope import rotary_angles, rotate
from mmcli.models.family import Capabilities, Family, Processor, Stage
from toy_family.grammar import END, LETTERS, PLACES, CornerGrammar

WIDTH, PATCH, GRID = 32, 8, 4  # of vectors; pixels of a patch's side; patches along an image's longer side
TASKS = Capabilities(images=True, images_needed=1, max_images=1, min_read_side=PATCH * GRID, objects=True)


class Toy(GenerativeModel):
    """One layer: to the text so far, to the patches of the image, and a head."""

    def __init__(self, config: dict):
        super().__init__()
        self.embedding, self.head = nn.Embedding(config["vocabulary"], WIDTH), nn.Linear(WIDTH, config["vocabulary"])
        self.patch, self.place = nn.Linear(3 * PATCH**2, WIDTH), nn.Embedding(GRID**2, WIDTH)
        self.qkv, self.query, self.kv = (nn.Linear(WIDTH, n * WIDTH) for n in (3, 1, 2))

    def new_cache(self, batch: int, length: int) -> KVCache:
        return KVCache(1, batch, length, 1, WIDTH, self.qkv.weight.dtype, self.qkv.weight.device)

    def encode(self, inputs: Inputs) -> CrossAttentionKV:
        """Keys and values of the patches [B, 1, P, D], zeros behind the images that have fewer."""
        places = [torch.arange(r)[:, None] * GRID + torch.arange(c) for r, c in inputs.image_layouts]
        states = [self.patch(i) + self.place(p.flatten()) for i, p in zip(inputs.images, places, strict=True)]
        there = nn.utils.rnn.pad_sequence([torch.ones(len(one), dtype=torch.bool) for one in states], True)
        k, v = self.kv(nn.utils.rnn.pad_sequence(states, True))[:, None].chunk(2, -1)
        return CrossAttentionKV([(k * there[:, None, :, None], v * there[:, None, :, None])], there)

    def prefill(self, inputs: Inputs, cache: KVCache) -> Tensor:
        cache.context = self.encode(inputs)
        return self.read(inputs.tokens, inputs.valid, cache)

    def step(self, tokens: Tensor, cache: KVCache) -> Tensor:
        return self.read(tokens[:, None], torch.ones_like(tokens[:, None], dtype=torch.bool), cache)

    def read(self, tokens: Tensor, valid: Tensor, cache: KVCache) -> Tensor:
        """Tokens [B, T] behind what the cache holds → logits [B, V] of the next."""
        angles = rotary_angles((cache.positions[:, None] + valid.long().cumsum(1) - 1).clamp(min=0), WIDTH, 100.0)
        cache.extend(valid)
        x = self.embedding(tokens)
        q, k, v = self.qkv(x)[:, None].chunk(3, -1)
        k, v = cache.append(0, rotate(k, *angles), v)
        x = x + attend(rotate(q, *angles), k, v, cache.causal_mask(tokens.shape[1]), WIDTH**-0.5)[:, 0]
        x = x + attend(self.query(x)[:, None], *cache.context.layers[0], cache.context.mask(), WIDTH**-0.5)[:, 0]
        return self.head(x[:, -1]).float()


class ToyProcessor(Processor):
    """Images keep their aspect; a prompt is its letters."""

    capabilities, stop_ids, grammar = TASKS, frozenset({END}), CornerGrammar()

    def inputs(self, pictures, prompts):
        grids = [self.grid(image) for [image] in pictures]
        images = [self.patches(image, *grid) for [image], grid in zip(pictures, grids, strict=True)]
        tokens, valid = pad_left([[LETTERS.index(c) for c in text if c in LETTERS] for text in prompts], 0)
        return Inputs(tokens, valid, tuple(images), tuple(grids))

    def grid(self, image: Image.Image) -> tuple[int, int]:
        """Rows and columns of patches."""
        scale = GRID / max(image.size)
        return max(1, round(image.height * scale)), max(1, round(image.width * scale))

    def patches(self, image: Image.Image, rows: int, columns: int) -> Tensor:
        """[P, 3·PATCH²] in -1..1, row by row."""
        small = image.resize((columns * PATCH, rows * PATCH))
        pixels = torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8).view(rows, PATCH, columns, PATCH, 3)
        return pixels.transpose(1, 2).reshape(rows * columns, -1) / 127.5 - 1

    def decode(self, ids):
        return "".join(LETTERS[i] if i < len(LETTERS) else f"[{i - len(LETTERS):02}]" for i in ids if i != END)

    def task_prompt(self, task, words):
        return f"{task} {words}"


FAMILY = Family(
    name="toy",
    read_config=dict,
    build=Toy,
    rules=lambda config: [Rule("{}.{}", "{}.{}")],
    processor=lambda folder, config, raw: ToyProcessor(),
    stages=lambda config: [Stage("patches", "linear", f"1 to {GRID * GRID} × {WIDTH}", 0)],
    capabilities=lambda config: TASKS,
)
CONFIG = {"model_type": "toy", "vocabulary": len(LETTERS) + PLACES + 1}
