"""Fuyu (Adept, 2023): no tower; patches of an image enter the decoder through one linear layer, among its text."""

import torch
from torch import Tensor, nn

from mmcli.engine.inputs import Inputs
from mmcli.engine.kv_cache import KVCache
from mmcli.engine.model import GenerativeModel
from mmcli.models.fuyu.config import FuyuConfig
from mmcli.models.fuyu.decoder import PersimmonDecoder


class Fuyu(GenerativeModel):
    """The whole model. All reading is causal, also of images; no id is forbidden in the answer, as in the reference."""

    def __init__(self, config: FuyuConfig):
        super().__init__()
        self.image_token = config.image_token
        self.decoder = PersimmonDecoder(config.decoder)
        self.patches = nn.Linear(config.patch_numbers, config.decoder.width)

    def new_cache(self, batch: int, length: int) -> KVCache:
        c, like = self.decoder.config, self.decoder.embedding.weight
        return KVCache(c.depth, batch, length, c.heads, c.head_width, like.dtype, like.device, shareable=True)

    def embed(self, inputs: Inputs) -> Tensor:
        """Embeddings of a batch, with the images' patches in their places: [B, T, D]."""
        x = self.decoder.embedding(inputs.tokens)
        if not inputs.images:
            return x
        soft = self.patches(torch.cat(inputs.images))
        return x.masked_scatter((inputs.tokens == self.image_token)[..., None], soft.to(x.dtype))

    def prefill(self, inputs: Inputs, cache: KVCache) -> Tensor:
        """Read a batch behind what the cache holds → logits [B, V] of the first token to write."""
        return self._read(self.embed(inputs), inputs.valid, cache)

    def step(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """Read one token a row, tokens [B] → logits [B, V] of the next."""
        x = self.decoder.embedding(tokens[:, None])
        positions = cache.positions[:, None].clone()
        cache.extend(torch.ones_like(tokens[:, None], dtype=torch.bool))
        return self.decoder.logits(self.decoder(x, positions, cache.step_mask(), cache))

    def _read(self, x: Tensor, valid: Tensor, cache: KVCache) -> Tensor:
        positions = (cache.positions[:, None] + valid.long().cumsum(dim=1) - 1).clamp(min=0)
        cache.extend(valid)
        return self.decoder.logits(self.decoder(x, positions, cache.causal_mask(x.shape[1]), cache))
