"""A model for tests of the engine: what it writes next is a function of what was written so far."""

import torch

from mmcli.engine.kv_cache import KVCache
from mmcli.engine.model import GenerativeModel


class WrittenModel(GenerativeModel):
    """Keeps the tokens themselves as keys, so that whoever reorders rows of the cache reorders them."""

    def new_cache(self, batch, length):
        return KVCache(1, batch, length, 1, 1, torch.float32, torch.device("cpu"))

    def prefill(self, inputs, cache):
        return self.read(inputs.tokens, cache)

    def step(self, tokens, cache):
        return self.read(tokens[:, None], cache)

    def read(self, tokens, cache):
        """Tokens [B, T] → logits [B, V] of the next one."""
        cache.extend(torch.ones_like(tokens, dtype=torch.bool))
        written, _ = cache.append(0, tokens[:, None, :, None].float(), tokens[:, None, :, None].float())
        return self.logits_behind(written[:, 0, :, 0].long())

    def logits_behind(self, written):
        """All tokens so far [B, T] → logits [B, V] of the next one."""
        raise NotImplementedError


def noise(seed, row, size):
    """Numbers that are always the same behind the same tokens."""
    generator = torch.Generator().manual_seed(hash((int(seed), *row)) % 2**31)
    return torch.randn(size, generator=generator)
