"""Llama 3.2 Vision: a tower over tiles, and a Llama decoder with layers that attend to what the tower made of them."""

from functools import partial
from itertools import groupby

import torch
from torch import Tensor, nn

from mmcli.engine import cuda_graph
from mmcli.engine.cross_attention import CrossAttentionKV
from mmcli.engine.device import sent
from mmcli.engine.hand_over import Found, HandOver
from mmcli.engine.inputs import Inputs
from mmcli.engine.kv_cache import KVCache
from mmcli.engine.model import GenerativeModel
from mmcli.layers import kernels
from mmcli.layers.attention import additive
from mmcli.layers.causal_lm import CHUNK
from mmcli.models.mllama.config import MllamaConfig
from mmcli.models.mllama.cross_mask import cross_attention_mask
from mmcli.models.mllama.decoder import CrossContext, Decoder
from mmcli.models.mllama.tiles import arrangements
from mmcli.models.mllama.vision import Tower

AT_ONCE = 4  # images in the tower, of as many tiles each: what one leaves in a layer takes a quarter of a gigabyte


class Mllama(GenerativeModel):
    """The whole model. `inputs.image_layouts` are the (rows, columns) of each image's tiles."""

    rows_join = True

    def __init__(self, config: MllamaConfig):
        super().__init__()
        self.config = config
        self.vision = Tower(config.vision)
        self.projector = nn.Linear(config.vision.output_width, config.decoder.width)
        self.decoder = Decoder(config)

    def new_cache(self, batch: int, length: int) -> KVCache:
        return self.decoder.new_cache(batch, length)

    def image_states(self, inputs: Inputs) -> Tensor:
        """All images of a batch in order → what the decoder's layers attend to, [I, M · P, D]."""
        layouts = [(rows, columns) for rows, columns in inputs.image_layouts]

        def tiles_of(place: int) -> int:
            return layouts[place][0] * layouts[place][1]

        numbers = {layout: number for number, layout in enumerate(arrangements(self.config.vision.most_tiles), 1)}
        device = self.projector.weight.device
        states: dict[int, Tensor] = {}
        for count, group in groupby(sorted(range(len(inputs.images)), key=tiles_of), key=tiles_of):
            places, order = list(group), sent(self.vision.order(count), device)
            for some in (places[first : first + AT_ONCE] for first in range(0, len(places), AT_ONCE)):
                arrangement = sent(torch.tensor([numbers[layouts[place]] for place in some]), device)
                tiles = torch.cat([inputs.images[place] for place in some])
                (vectors,) = cuda_graph.encode(
                    self, partial(self._tiles_states, count=count), tiles, arrangement, order, kind=count
                )
                states.update(zip(some, vectors, strict=True))
        return torch.stack([states[place] for place in range(len(inputs.images))])

    def _tiles_states(self, tiles: Tensor, arrangement: Tensor, order: Tensor, count: int) -> list[Tensor]:
        """The tiles of images [I · M, 3, side, side] → [I, M · P, D]; see `Tower.forward`."""
        images = tiles.unflatten(0, (len(arrangement), -1))
        return [self.projector(self.vision(images, arrangement, order, count)).flatten(1, 2)]

    def encode_images(self, inputs: Inputs) -> tuple[CrossAttentionKV, Tensor]:
        """Keys and values of all images of a batch, and which of them each token attends to [B, T, S].

        A row with fewer images than others has zeros behind its own, which no token attends to.
        """
        vision, image, tokens = self.config.vision, self.config.image_token, inputs.tokens.cpu()
        counts = [rows * columns for rows, columns in inputs.image_layouts]
        own = (tokens == image).sum(dim=1).tolist()
        if sum(own) != len(inputs.images):
            raise ValueError(f"{len(inputs.images)} images for {sum(own)} places")
        # In front of the tower: the host asks nothing of the device behind it, and gives it the decoder meanwhile.
        attends = cross_attention_mask(tokens, image, counts, vision.most_tiles, vision.patches)
        attends = sent(attends, inputs.tokens.device)
        states = [part.flatten(0, 1) for part in self.image_states(inputs).split(own)]
        return CrossAttentionKV.padded(states, self.decoder.keys_values), attends

    def prefill(self, inputs: Inputs, cache: KVCache) -> Tensor:
        """Read a batch behind what the cache holds → logits [B, V] of the first token to write.

        Padding may stand on the left, in front of a row's first token only. Images are read into an empty cache only
        (`Capabilities.rereads_for_images`): what stands in front of the first one attends to it too.
        """
        if inputs.images and cache.length:
            raise ValueError("images change what was read before them: begin with an empty cache")
        x = self.decoder.embed(inputs.tokens)
        if cache.length == 0:
            cache.context = self._nothing(len(x))
        images, attends = self.encode_images(inputs) if inputs.images else (None, None)
        hidden = x
        for first in range(0, x.shape[1], CHUNK):
            part = slice(first, first + CHUNK)
            context = self._later_context(cache, x)
            if images is not None and attends is not None:
                context = self._context_of(images, attends[:, part], x)
            hidden = self._read(x[:, part], inputs.valid[:, part], cache, context)
        if images is not None and attends is not None:
            cache.context = _still_attended(images, attends[:, -1])
        return self.decoder.logits(hidden[:, -1])

    def likeliest(self, logits: Tensor, hand_over: HandOver | None = None) -> Found | None:
        return kernels.likeliest(logits, hand_over)

    def step(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """Read one token a row, tokens [B] → logits [B, V] of the next."""
        x = self.decoder.embed(tokens[:, None])
        valid = torch.ones_like(tokens[:, None], dtype=torch.bool)
        return self.decoder.logits(self._read(x, valid, cache, self._later_context(cache, x))[:, -1])

    def _read(self, x: Tensor, valid: Tensor, cache: KVCache, context: CrossContext | None) -> Tensor:
        positions = (cache.positions[:, None] + valid.long().cumsum(dim=1) - 1).clamp(min=0)
        cache.extend(valid)
        mask = cache.step_mask() if x.shape[1] == 1 else cache.causal_mask(x.shape[1])
        return self.decoder.read(x, positions, mask, cache, context)

    def _nothing(self, rows: int) -> CrossAttentionKV:
        """The keys and values of no images."""
        c, like = self.config.decoder, self.projector.weight
        empty = like.new_zeros(rows, c.key_heads, 0, c.head_width)
        valid = torch.zeros(rows, 0, dtype=torch.bool, device=like.device)
        return CrossAttentionKV([(empty, empty) for _ in self.config.cross_layers], valid)

    def _context_of(self, images: CrossAttentionKV, attends: Tensor, like: Tensor) -> CrossContext:
        """What tokens attend to that stand among images, `attends` [B, T, S].

        Those in front of the first image attend to all there is of its row, empty tiles too; a row without images
        attends to zeros, which change nothing.
        """
        assert images.valid is not None
        there = images.valid[:, None]
        behind = attends.any(dim=2, keepdim=True)
        mask = attends | (~behind & there) | ~there.any(dim=2, keepdim=True)
        return CrossContext(images, mask[:, None], behind.to(like))

    def _later_context(self, cache: KVCache, like: Tensor) -> CrossContext | None:
        """What tokens attend to that stand behind all images, each of its row's last ones; None where no row has
        any."""
        images = cache.context
        assert isinstance(images, CrossAttentionKV) and images.valid is not None
        mask = images.mask()
        if images.valid.shape[1] == 0 or mask is None:
            return None
        attends = images.valid.any(dim=1)[:, None, None].to(like)
        attends = attends.repeat_interleave(len(like) // len(attends), dim=0)
        mask = additive(mask, like.dtype) if like.shape[1] == 1 else mask
        return CrossContext(images, mask, attends)


def _still_attended(images: CrossAttentionKV, attends: Tensor) -> CrossAttentionKV:
    """What tokens behind the prompt will attend to, as the last of each row does: `attends` [B, S]. The rest is let
    go."""
    places = attends.any(dim=0).nonzero()[:, 0]
    layers = [(k[:, :, places].contiguous(), v[:, :, places].contiguous()) for k, v in images.layers]
    return CrossAttentionKV(layers, attends[:, places])
