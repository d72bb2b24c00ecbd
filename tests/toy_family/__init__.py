"""The smallest family that is unlike the others: images of any aspect, cross-attention, a grammar of its own.

Its answers are nonsense (random weights); what matters is that this folder and a line of the registry are all it takes.
"""

from mmcli.engine.cross_attention import CrossAttentionKV
from mmcli.hub.pixel_values import PixelValues
from mmcli.layers.causal_lm import CausalReader
from mmcli.layers.decoder import Layer, LlamaConfig, LlamaDecoder
from mmcli.layers.encoder_decoder import CrossAttention
from mmcli.layers.siglip import SiglipConfig, SiglipTower
from mmcli.models.family import Capabilities, Family, Processor
from toy_family.grammar import END, LETTERS, CornerGrammar

WIDTH, PATCH, GRID = 32, 8, 4  # of vectors; pixels of a patch's side; patches along an image's longer side
TOWER = SiglipConfig(WIDTH, depth=1, mlp_width=64, heads=2, image_size=PATCH * GRID, patch_size=PATCH)
DECODER = LlamaConfig(END + 1, WIDTH, depth=1, mlp_width=64, heads=2, key_heads=1, head_width=16)
TASKS = Capabilities(images=True, images_needed=1, max_images=1, min_read_side=PATCH * GRID, objects=True)


class CrossLayer(Layer):
    """A decoder layer that attends to the image when it has attended to the text."""

    def __init__(self):
        super().__init__(DECODER, 0)
        self.cross = CrossAttention(WIDTH, 1)

    def forward(self, x, angles, mask, cache):
        x = super().forward(x, angles, mask, cache)
        return x + self.cross(x, cache.context.layers[0], cache.context.mask())


class Toy(CausalReader):
    """A tower over patches, to whose vectors the decoder's layer attends."""

    def __init__(self, config: dict):
        super().__init__()
        self.vision, self.decoder = SiglipTower(TOWER), LlamaDecoder(DECODER, [CrossLayer()])

    def context(self, inputs):
        states = [self.vision.read_any(image[None])[0] for image in inputs.images]
        return CrossAttentionKV.padded(states, lambda x: [self.decoder.layers[0].cross.keys_values(x)])


class ToyProcessor(Processor):
    """Images keep their aspect; a prompt is its letters."""

    capabilities, stop_ids, grammar = TASKS, frozenset({END}), CornerGrammar()

    def row(self, prompt, images):
        return [LETTERS.index(letter) for letter in prompt if letter in LETTERS]

    def pixels_of(self, image):
        size = [max(1, round(side * GRID / max(image.size))) * PATCH for side in image.size]
        return PixelValues().of(image.resize(size))

    def decode(self, ids):
        return "".join(LETTERS[i] if i < len(LETTERS) else f"[{i - len(LETTERS):02}]" for i in ids if i != END)


FAMILY = Family(name="toy", read_config=dict, build=Toy, processor=ToyProcessor.open, capabilities=lambda _: TASKS)
