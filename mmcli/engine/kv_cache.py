"""The one key-value cache."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmcli.engine.device import sent
from mmcli.engine.row_state import RowState


@dataclass(frozen=True)
class Groups:
    """Rows in any order, as many of each shared prefix: those that are too few are filled up with row 0."""

    rows: Tensor  # [B' · C] the rows, prefix by prefix
    places: Tensor  # [R] where each row stands among these

    @classmethod
    def of(cls, owners: list[int], count: int, device: torch.device) -> "Groups | None":
        """`owners` names for each row which of `count` prefixes it reads; None where they are in order as they are."""
        own: list[list[int]] = [[] for _ in range(count)]
        for row, owner in enumerate(owners):
            own[owner].append(row)
        size = max(map(len, own))
        rows = [row for mine in own for row in mine + [0] * (size - len(mine))]
        if rows == list(range(len(owners))):
            return None
        places = [owner * size + own[owner].index(row) for row, owner in enumerate(owners)]
        return cls(torch.tensor(rows, device=device), torch.tensor(places, device=device))


MOST_ARRIVALS = 256  # programs that are counted one by one: query heads of a row


class KVCache:
    """Keys and values of every layer, allocated once for a known length.

    Rows are aligned at their ends (prefixes are padded on the left), so one `length` serves the whole batch: every step
    writes one slice. Each begins where it will: `valid` [B, S] tells its tokens from padding, and `positions` [B] holds
    its own length, which is its next position. So rows come and go while others are being written (`insert`,
    `release`), which is what continuous batching needs.

    While a step is recorded as a CUDA graph the cache is `fixed`: a step then writes at `cursor`, a place in device
    memory, and attends to the whole capacity under a mask, since a graph is played back with the shapes it was
    recorded with.
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
        shareable: bool = False,
        ahead: int = 0,
        store: Tensor | None = None,
    ):
        """`shareable` says that the model attends to `prefix` beside what `append` returns. The first `ahead` tokens
        are kept elsewhere: see `lean_on`. `store` is memory for the others that is there already."""
        shape = (layers, 2, batch, key_heads, length - ahead, head_width)
        # Zeros, not whatever the memory holds: what a mask hides is still multiplied by a weight of zero.
        self.store = torch.zeros(shape, dtype=dtype, device=device) if store is None else store
        self.valid = torch.zeros(batch, length, dtype=torch.bool, device=device)
        self.positions = torch.zeros(batch, dtype=torch.long, device=device)
        self.length = 0
        self.shareable = shareable
        self.ahead = ahead
        self.shared: Tensor | None = None  # [layers, 2, B', K, P, H] of the first P tokens, see `share`
        self._owners: list[int] | None = None  # which of the B' each row reads; None: neighbours, as many of each
        self.groups: Groups | None = None
        self.context: RowState | None = None  # what else a model keeps of the rows, as `CrossAttentionKV`
        self.fixed = False
        self.cursor = torch.zeros(1, dtype=torch.long, device=device)
        # Counts by which the programs of a kernel find the last one of them; it leaves them as zeros.
        self.arrivals = torch.zeros(MOST_ARRIVALS, dtype=torch.int32, device=device)
        # Recordings in this very memory (see `engine/cuda_graph.py`): of a step, and of prompts by their shapes.
        self.graph: Any = None
        self.prefills: dict[Any, Any] = {}

    @property
    def capacity(self) -> int:
        return self.valid.shape[1]

    @property
    def rows(self) -> int:
        return self.valid.shape[0]

    def extend(self, valid: Tensor) -> None:
        """Claim room for T new tokens, of which `valid` [B, T] are real; call it before the layers run.

        Raises ValueError if they do not fit.
        """
        if self.fixed:
            self.valid.index_copy_(1, self.cursor, valid)
            self.positions += valid.sum(dim=1)
            return
        end = self.length + valid.shape[1]
        if end > self.capacity:
            raise ValueError(f"the cache holds {self.capacity} tokens, {end} were asked for")
        self.valid[:, self.length : end] = valid
        self.positions += valid.sum(dim=1)
        self.length = end

    def extend_by_one(self) -> None:
        """`extend` by a real token for every row."""
        if self.fixed:
            self.valid.index_fill_(1, self.cursor, True)
            self.positions += 1
        else:
            self.extend(self.valid.new_ones(self.rows, 1))

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store one layer's new keys and values [B, K, T, H] in the room claimed; return all so far [B, K, S, H]."""
        keys, values = self.store[layer]
        if self.fixed:
            keys.index_copy_(2, self.cursor, k)
            values.index_copy_(2, self.cursor, v)
            return keys, values
        end = self.length - self._start
        keys[:, :, end - k.shape[2] : end] = k
        values[:, :, end - v.shape[2] : end] = v
        return keys[:, :, :end], values[:, :, :end]

    def room(self, layer: int, count: int) -> tuple[Tensor, Tensor] | None:
        """Where `append` would store one layer's keys and values of the last `count` tokens claimed, [B, K, T, H] each.

        None where it does more than that.
        """
        if self.fixed or self.shared is not None:
            return None
        keys, values = self.store[layer, ..., self.length - count : self.length, :]
        return keys, values

    def share(self) -> None:
        """From here on `keep` copies only what follows: the rows it makes of one row attend to one prefix.

        Such rows must stay neighbours, as many of each. It does nothing where the model's attention cannot do that.
        """
        if self.shareable and self.shared is None:
            self.shared, self.store = self.store.split((self.length, self.capacity - self.length), dim=-2)
            self._forget_recordings()

    def lean_on(self, prefix: Tensor, owners: list[int]) -> None:
        """Have the first tokens `ahead`, not yet claimed, from `prefix` [layers, 2, B', K, P, H], which stays as it is:
        `owners` names for each row which of the B' it reads. The type may be another than the cache's own.
        """
        self.shared, self._owners = prefix, owners
        self.groups = Groups.of(owners, prefix.shape[2], prefix.device)

    def prefix(self, layer: int) -> tuple[Tensor, Tensor] | None:
        """Keys and values of one layer that neighbouring rows share [B', K, P, H]; `append` returns those behind."""
        return None if self.shared is None else (self.shared[layer, 0], self.shared[layer, 1])

    @property
    def _start(self) -> int:
        """The place in a row of the store's first token."""
        return 0 if self.shared is None else self.shared.shape[-2]

    def layer(self, layer: int) -> tuple[Tensor, Tensor]:
        """All keys and values of one layer so far [B, K, S, H], for layers that attend to another's."""
        keys, values = self.store[layer]
        return (keys, values) if self.fixed else (keys[:, :, : self.length], values[:, :, : self.length])

    def step_mask(self, window: int | None = None) -> Tensor:
        """What the one token just claimed may attend to, [B, 1, 1, S]: all real ones, or the last `window` of them."""
        seen = self.valid[:, None, None, :] if self.fixed else self.valid[:, None, None, : self.length]
        if window is None or (not self.fixed and self.length <= window):
            return seen
        places = torch.arange(seen.shape[-1], device=seen.device)
        return seen & (places > (self.cursor if self.fixed else self.length - 1) - window)

    def causal_mask(self, count: int, window: int | None = None) -> Tensor:
        """What each of the last `count` tokens claimed may attend to, [B, 1, count, S]: real ones up to itself.

        With `window` only the last that many, itself included. Padding attends to itself, so that no row of the softmax
        is empty.
        """
        places = torch.arange(self.length, device=self.valid.device)
        back = places[self.length - count :, None] - places  # how far behind each query a key lies
        near = back >= 0 if window is None else (back >= 0) & (back < window)
        return (self.valid[:, None, None, : self.length] & near) | (back == 0)

    def grow(self, length: int) -> None:
        """Make room for `length` tokens in all; the room at least doubles, so that growing stays cheap."""
        if length <= self.capacity:
            return
        more = max(length, 2 * self.capacity) - self.capacity
        self.store = F.pad(self.store, (0, 0, 0, more))
        self.valid = F.pad(self.valid, (0, more))
        self._forget_recordings()

    def truncate(self, length: int) -> None:
        """Forget all tokens from place `length` on."""
        self.valid[:, length:].fill_(False)
        if length == 0:
            self.positions.zero_()
        else:
            self.positions.copy_(self.valid.sum(dim=1))
        self.length = length

    def keep(self, rows: list[int], shared_rows: list[int] | None = None) -> None:
        """Go on with these rows, in this order; a row may be taken several times.

        Rows that stay in place are not copied. What several of our rows share (a prefix, a `context` that is shared)
        goes on with `shared_rows` instead.
        """
        shared_rows = rows if shared_rows is None else shared_rows
        self.store = keep_rows(self.store, rows, 2, self.length - self._start)
        if self._owners is not None:
            self._keep_owners([self._owners[row] for row in rows])
        elif self.shared is not None:
            self.shared = keep_rows(self.shared, shared_rows, 2)
        self.valid = keep_rows(self.valid, rows, 0)
        self.positions = keep_rows(self.positions, rows, 0)
        self._forget_recordings()
        if self.context is not None:
            self.context.keep(shared_rows if self.context.shared else rows)

    def _keep_owners(self, owners: list[int]) -> None:
        """Let rows read these prefixes from now on; those that nobody reads go when they are more than half."""
        assert self.shared is not None
        used = sorted(set(owners))
        if 2 * len(used) < self.shared.shape[2]:
            self.shared = self.shared.index_select(2, torch.tensor(used, device=self.shared.device))
            owners = [used.index(owner) for owner in owners]
        self.lean_on(self.shared, owners)

    def insert(self, rows: Sequence[int], other: "KVCache", of: range | None = None) -> None:
        """Let rows of a cache that was prefilled on its own take the places of `rows`, for the others' next step.

        They are the rows `of` the other one, or all. Where they have more tokens than there are places so far, all rows
        move back. The room grows where it must.
        """
        if self.shared is not None:
            raise ValueError("rows that share a prefix begin and end together")
        if self.context is None and other.context is not None:
            raise ValueError("rows with a context cannot join those without one")
        of = range(other.rows) if of is None else of
        taken, count = slice(of.start, of.stop), other.length
        if count > self.length:
            self.grow(count)
            self._shift(count - self.length)
        index, places = sent(torch.tensor(rows), self.valid.device), slice(self.length - count, self.length)
        self.store[:, :, index, :, places] = other.store[:, :, taken, :, :count]
        self.valid.index_fill_(0, index, False)
        self.valid[index, places] = other.valid[taken, :count]
        self.positions[index] = other.positions[taken]
        if self.context is not None and other.context is not None:
            moved = [self.context.insert(row, other.context, source) for source, row in zip(of, rows, strict=True)]
            self.graph = None if any(moved) else self.graph

    def release(self, row: int) -> None:
        """Forget the tokens of a row that is done. It goes on with the others until another is put in its place."""
        self.valid[row].fill_(False)  # to assign a number would bring it from the host, which waits for the device
        self.positions[row].fill_(0)

    def make_room(self) -> None:
        """Make room for one more token: by `compact` where that gains any, else by growing."""
        if self.length == self.capacity:
            self.compact()
        self.grow(self.length + 1)

    def compact(self) -> None:
        """Win room by moving all rows to the front as far as the longest of them allows."""
        used = self.valid[:, : self.length].any(dim=0)
        if used.any() and self.shared is None:
            self._shift(-int(used.long().argmax()))

    def _forget_recordings(self) -> None:
        """Drop recorded graphs: they read and write memory that is no longer the cache's."""
        self.graph = None
        self.prefills = {}

    def _shift(self, places: int) -> None:
        """Move all tokens so many places back, or to the front if negative: the memory stays the same."""
        if not places:
            return
        old, new = slice(max(0, -places), self.length), slice(max(0, places), self.length + places)
        for layer in self.store:  # one after another, since each is copied on its way
            layer[..., new, :] = layer[..., old, :].clone()
        moved = self.valid[:, old].clone()
        self.valid.fill_(False)
        self.valid[:, new] = moved
        self.length += places
        if self.context is not None:
            self.context.shift(places)


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
