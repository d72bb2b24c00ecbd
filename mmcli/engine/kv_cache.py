"""The one key-value cache."""

import torch
from torch import Tensor


class KVCache:
    """Keys and values of every layer, allocated once for a known length.

    Rows are aligned at their ends (prefixes are padded on the left), so one `length` serves the whole batch;
    `valid` [B, S] tells real positions from padding and `positions` [B] holds each row's next position.
    """

    def __init__(
        self,
        layers: int,
        batch: int,
        length: int,
        key_heads: int,
        head_width: int,
        dtype: torch.dtype,
        device: torch.device,
    ):
        shape = (layers, 2, batch, key_heads, length, head_width)
        self.store = torch.empty(shape, dtype=dtype, device=device)
        self.valid = torch.zeros(batch, length, dtype=torch.bool, device=device)
        self.positions = torch.zeros(batch, dtype=torch.long, device=device)
        self.length = 0

    @property
    def capacity(self) -> int:
        return self.valid.shape[1]

    def extend(self, valid: Tensor) -> None:
        """Claim room for T new tokens, of which `valid` [B, T] are real; call it before the layers run.

        Raises ValueError if they do not fit.
        """
        end = self.length + valid.shape[1]
        if end > self.capacity:
            raise ValueError(f"the cache holds {self.capacity} tokens, {end} were asked for")
        self.valid[:, self.length : end] = valid
        self.positions += valid.sum(dim=1)
        self.length = end

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store one layer's new keys and values [B, K, T, H] in the room claimed; return all so far [B, K, S, H]."""
        keys, values = self.store[layer]
        keys[:, :, self.length - k.shape[2] : self.length] = k
        values[:, :, self.length - v.shape[2] : self.length] = v
        return keys[:, :, : self.length], values[:, :, : self.length]
