"""The smallest family that is unlike the others: patches of any aspect, cross-attention, a grammar of its own.

Its answers are nonsense (random weights); what matters is that nothing outside this folder knows it, but for one line
of the registry.
"""

import torch
from torch import nn

from mmcli.engine.cross_attention import CrossAttentionKV
from mmcli.engine.inputs import Inputs, pad_left
from mmcli.layers.causal_lm import CausalReader
from mmcli.layers.decoder import Layer, LlamaConfig, LlamaDecoder
from mmcli.layers.encoder_decoder import CrossAttention
from mmcli.models.family import Capabilities, Family, Processor
from toy_family.grammar import END, LETTERS, CornerGrammar

WIDTH, PATCH, GRID = 32, 8, 4  # of vectors; pixels of a patch's side; patches along an image's longer side
DECODER = LlamaConfig(END + 1, WIDTH, depth=1, mlp_width=64, heads=2, key_heads=1, head_width=16)
TASKS = Capabilities(images=True, images_needed=1, max_images=1, min_read_side=PATCH * GRID, objects=True)


class LookingLayer(Layer):
    """A decoder layer that looks at the image when it has looked at the text."""

    def __init__(self):
        super().__init__(DECODER, 0)
        self.cross = CrossAttention(WIDTH, 1)

    def forward(self, x, angles, mask, cache):
        x = super().forward(x, angles, mask, cache)
        return x + self.cross(x, *cache.context.layers[0], cache.context.mask())


class Toy(CausalReader):
    """Patches through a linear layer, which the decoder's layer looks at."""

    images_in_text = False

    def __init__(self, config: dict):
        super().__init__()
        self.patch, self.place = nn.Linear(3 * PATCH**2, WIDTH), nn.Embedding(GRID**2, WIDTH)
        self.decoder = LlamaDecoder(DECODER, [LookingLayer()])

    def context(self, inputs):
        places = [torch.arange(r)[:, None] * GRID + torch.arange(c) for r, c in inputs.image_layouts]
        states = [self.patch(i) + self.place(p.flatten()) for i, p in zip(inputs.images, places, strict=True)]
        return CrossAttentionKV.padded(states, lambda x: [self.decoder.layers[0].cross.keys_values(x)])


class ToyProcessor(Processor):
    """Images keep their aspect; a prompt is its letters."""

    capabilities, stop_ids, grammar = TASKS, frozenset({END}), CornerGrammar()

    def inputs(self, images, prompts):
        images, grids = zip(*(self.patches(image) for [image] in images), strict=True)
        tokens, valid = pad_left([[LETTERS.index(c) for c in text if c in LETTERS] for text in prompts], 0)
        return Inputs(tokens, valid, images, grids)

    def patches(self, image):
        """[P, 3·PATCH²] in -1..1, row by row, and how many rows and columns."""
        rows, columns = (max(1, round(side * GRID / max(image.size))) for side in (image.height, image.width))
        small = image.resize((columns * PATCH, rows * PATCH))
        pixels = torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8).view(rows, PATCH, columns, PATCH, 3)
        return pixels.transpose(1, 2).reshape(rows * columns, -1) / 127.5 - 1, (rows, columns)

    def decode(self, ids):
        return "".join(LETTERS[i] if i < len(LETTERS) else f"[{i - len(LETTERS):02}]" for i in ids if i != END)


FAMILY = Family(
    name="toy",
    read_config=dict,
    build=Toy,
    processor=lambda folder, config, raw: ToyProcessor(),
    capabilities=lambda config: TASKS,
)
CONFIG = {"model_type": "toy"}
