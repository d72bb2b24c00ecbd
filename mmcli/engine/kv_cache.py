"""The one key-value cache."""

from typing import Any

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
        self.context: Any = None  # what a family's model looks at beside its own tokens (an encoder's keys and values)

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

    def keep(self, rows: list[int], context_rows: list[int] | None = None) -> None:
        """Go on with these rows, in this order; a row may be taken several times.

        Rows that stay in place are not copied. A `context` that has `keep(rows)` goes along, with rows of its own where
        several of ours share one of them.
        """
        self.store = keep_rows(self.store, rows, 2, self.length)
        self.valid = keep_rows(self.valid, rows, 0)
        self.positions = keep_rows(self.positions, rows, 0)
        if hasattr(self.context, "keep"):
            self.context.keep(rows if context_rows is None else context_rows)


def keep_rows(store: Tensor, rows: list[int], dim: int, length: int | None = None) -> Tensor:
    """Rows of dimension `dim` in a new order, in the old memory where that can be: moved are only those out of place.

    `length` tells how much of the last dimension but one is filled.
    """
    count = len(rows)
    moved = [place for place, row in enumerate(rows) if place != row]
    if any(rows[place] < count for place in moved):  # a row that is overwritten is still wanted elsewhere
        index = torch.tensor(rows, device=store.device)
        if length is None or count > store.shape[dim]:
            return store.index_select(dim, index)
        chosen = store.narrow(-2, 0, length).index_select(dim, index)
        store = store.narrow(dim, 0, count)
        store.narrow(-2, 0, length).copy_(chosen)
        return store
    filled = store if length is None else store.narrow(-2, 0, length)
    for place in moved:
        filled.select(dim, place).copy_(filled.select(dim, rows[place]))
    return store.narrow(dim, 0, count)
