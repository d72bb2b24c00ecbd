"""A decoder that reads soft tokens and a prompt in both directions, then writes: the shape of PaliGemma and nano."""

import torch
from torch import Tensor

from mmcli.engine.hand_over import Found, HandOver
from mmcli.engine.inputs import Inputs
from mmcli.engine.kv_cache import KVCache
from mmcli.engine.model import GenerativeModel
from mmcli.layers import kernels
from mmcli.layers.attention import prefix_mask, prefix_positions
from mmcli.layers.gemma import DecoderConfig, GemmaDecoder


class PrefixLM(GenerativeModel):
    """Base of families whose images become soft tokens in front of the prompt.

    A subclass supplies `soft_tokens(pixels)` [images, 3, side, side] → [images, P, D] and may change the mask.
    Forbidden in the answer are the image token and ids from `vocabulary_end` on, which are rows that only fill the
    table up; by default that is the image token and everything behind it.
    """

    rows_join = prefill_records = True

    def __init__(self, config: DecoderConfig, image_token: int, vocabulary_end: int | None = None):
        super().__init__()
        self.image_token = image_token
        self.vocabulary_end = image_token if vocabulary_end is None else vocabulary_end
        self.decoder = GemmaDecoder(config)

    def soft_tokens(self, pixels: Tensor) -> Tensor:
        raise NotImplementedError

    def prefix_masks(self, inputs: Inputs) -> tuple[Tensor, Tensor | None]:
        """Masks of the prefix for full and for sliding layers (None: the same)."""
        return prefix_mask(inputs.valid), None

    def step_masks(self, cache: KVCache) -> tuple[Tensor, Tensor | None]:
        """Masks of one new token over everything in the cache, for full and for sliding layers."""
        return cache.step_mask(), None

    def new_cache(self, batch: int, length: int) -> KVCache:
        c, like = self.decoder.config, self.decoder.norm.weight
        return KVCache(c.depth, batch, length, c.key_heads, c.head_width, like.dtype, like.device, shareable=True)

    def embed(self, inputs: Inputs) -> Tensor:
        """Prompt embeddings with the images' soft tokens put in their places: [B, T, D]."""
        is_image = inputs.tokens == self.image_token
        x = self.decoder.embed(inputs.tokens.masked_fill(is_image, 0))
        if not inputs.images:
            return x
        soft = self.soft_tokens(torch.stack(inputs.images)).to(x.dtype)
        return x.masked_scatter(is_image[..., None], soft)

    def prefill(self, inputs: Inputs, cache: KVCache) -> Tensor:
        """Read a batch of prefixes into an empty cache → logits [B, V] of the first token to write."""
        x = self.embed(inputs)
        mask, sliding = self.prefix_masks(inputs)
        cache.extend(inputs.valid)
        hidden = self.decoder(x, prefix_positions(inputs.valid), mask, cache, sliding, last_only=True)
        return self._allowed(self.decoder.logits(hidden[:, -1]))

    def likeliest(self, logits: Tensor, hand_over: HandOver | None = None) -> Found | None:
        return kernels.likeliest(logits, hand_over)

    def step(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """Read one token a row, tokens [B] → logits [B, V] of the next."""
        x = self.decoder.embed(tokens[:, None])
        positions = cache.positions[:, None].clone()
        cache.extend_by_one()
        mask, sliding = self.step_masks(cache)
        hidden = self.decoder(x, positions, mask, cache, sliding)
        return self._allowed(self.decoder.logits(hidden[:, -1]))

    def _allowed(self, logits: Tensor) -> Tensor:
        logits[..., self.vocabulary_end :] = -torch.inf
        if self.image_token < self.vocabulary_end:
            logits[..., self.image_token : self.image_token + 1] = -torch.inf
        return logits
