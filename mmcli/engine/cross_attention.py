"""Keys and values that a decoder attends to beside its own tokens: those of an encoder, or of image tokens."""

from collections.abc import Callable, Iterable, Sequence
from typing import Self

import torch
from torch import Tensor

from mmcli.engine.device import sent
from mmcli.engine.row_state import RowState

Layers = Sequence[tuple[Tensor, ...]]

MOST_COPIED = 1 << 30  # bytes that a recorded step may have of its own: with more, recording anew takes a small part


class CrossAttentionKV(RowState):
    """Keys and values [B, K, S, H] of every layer with cross-attention, computed once, in any layout in memory.

    Where there is no `valid`, a layer may also have other tensors with a row for each of B: integers and their scales.

    Several neighbouring rows of a cache may attend to one row here: the beams of one answer. Rows that are not kept
    wait behind the others, so that all can be attended to again (`all`). `valid` [B, S] marks what there is to
    attend to where rows differ in length; None: everything.
    """

    shared = True

    def __init__(self, layers: Layers, valid: Tensor | None = None):
        self.whole = list(layers)  # of all rows, the kept ones first
        self.layers = list(layers)  # of the rows kept
        self._all_valid = valid
        self.valid = valid
        self.order = list(range(layers[0][0].shape[0]))  # which row stands where

    @classmethod
    def padded(cls, rows: Sequence[Tensor], keys_values: Callable[[Tensor], Iterable[tuple[Tensor, Tensor]]]) -> Self:
        """Of vectors [S, D] of each row, which may have more or fewer: zeros stand behind those that have fewer.

        `keys_values` gives the keys and values of every layer of vectors [B, S, D].
        """
        states = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
        lengths = sent(torch.tensor([len(row) for row in rows]), states.device)
        valid = torch.arange(states.shape[1], device=states.device) < lengths[:, None]
        there = valid[:, None, :, None]
        return cls([(k * there, v * there) for k, v in keys_values(states)], valid)

    @property
    def device(self) -> torch.device:
        return self.whole[0][0].device

    def mask(self) -> Tensor | None:
        """What may be attended to [B, 1, 1, S]; None: everything. A row with nothing to attend to sees all of its
        zeros."""
        if self.valid is None:
            return None
        return (self.valid | ~self.valid.any(dim=1, keepdim=True))[:, None, None, :]

    def rows(self, rows: list[int]) -> Self:
        """Some of the rows by their original numbers, in the order given, as a copy."""
        index = torch.tensor([self.order.index(row) for row in rows], device=self.device)
        valid = None if self._all_valid is None else self._all_valid[index]
        return type(self)([tuple(_chosen(part, index) for part in layer) for layer in self.whole], valid)

    def one(self, row: int) -> Self:
        """One of the rows, without a copy."""
        place = slice(self.order.index(row), self.order.index(row) + 1)
        valid = None if self._all_valid is None else self._all_valid[place]
        return type(self)([tuple(part[place] for part in layer) for layer in self.whole], valid)

    def keep(self, rows: list[int]) -> None:
        """Go on with the rows that stand in these places, each at most once: they change places in memory."""
        for place, other in enumerate(rows):
            if other == place:
                continue
            if other < len(rows):
                raise ValueError("only rows behind the last one kept can be moved")
            for tensor in self._tensors():
                moved = tensor[place].clone()
                tensor[place] = tensor[other]
                tensor[other] = moved
            self.order[place], self.order[other] = self.order[other], self.order[place]
        self._select(len(rows))

    def all(self) -> None:
        """Look at every row again, in the order of the beginning."""
        if self.order != sorted(self.order):
            sorted_rows = self.rows(sorted(self.order))
            self.whole, self._all_valid, self.order = sorted_rows.whole, sorted_rows.valid, sorted(self.order)
        self._select(len(self.order))

    def insert(self, row: int, other: RowState, source: int = 0) -> bool:
        """As `RowState.insert`; shorter rows are padded with zeros, which `valid` marks."""
        if not isinstance(other, CrossAttentionKV):
            raise TypeError(f"{type(other).__name__} has no keys and values to look at")
        mine, theirs = self.whole[0][0].shape[2], other.whole[0][0].shape[2]
        if (self._all_valid is None) != (other._all_valid is None) or (self._all_valid is None and mine != theirs):
            raise ValueError("rows with and without masks, or of other lengths, cannot stand side by side")
        grows = self._all_valid is not None and theirs > mine
        if self._all_valid is not None and grows:
            grown = [tuple(_longer(part, theirs) for part in layer) for layer in self.whole]
            self.whole = [(k, v) for k, v in grown]
            self._all_valid = _longer(self._all_valid[:, None, :, None], theirs)[:, 0, :, 0]
        for mine_part, their_part in zip(self._tensors(), other._tensors(), strict=True):
            if mine_part.ndim == 2:
                mine_part[row] = False
                mine_part[row, :theirs] = their_part[source]
            else:
                mine_part[row] = 0
                mine_part[row, :, :theirs] = their_part[source]
        self._select(len(self.layers[0][0]))
        return grows

    def copied(self) -> Self | None:
        """As `RowState.copied`, where all rows are kept and it is not much."""
        if len(self.order) != len(self.layers[0][0]) or sum(part.nbytes for part in self._tensors()) > MOST_COPIED:
            return None
        valid = None if self.valid is None else self.valid.clone()
        return type(self)([tuple(part.clone() for part in layer) for layer in self.layers], valid)

    def take(self, other: RowState) -> bool:
        """As `RowState.take`."""
        if not isinstance(other, CrossAttentionKV) or len(other.order) != len(other.layers[0][0]):
            return False
        mine, theirs = self._tensors(), other._tensors()
        shapes = [[(part.shape, part.stride(), part.dtype) for part in own] for own in (mine, theirs)]
        if shapes[0] != shapes[1]:
            return False
        for own, given in zip(mine, theirs, strict=True):
            own.copy_(given)
        return True

    def shift(self, places: int) -> None:
        """Does nothing: these keys and values do not depend on places in the cache."""

    def _tensors(self) -> list[Tensor]:
        valid = [] if self._all_valid is None else [self._all_valid]
        return [*(tensor for layer in self.whole for tensor in layer), *valid]

    def _select(self, count: int) -> None:
        self.layers = [tuple(part[:count] for part in layer) for layer in self.whole]
        self.valid = None if self._all_valid is None else self._all_valid[:count]


def _chosen(x: Tensor, index: Tensor) -> Tensor:
    """Rows of [B, K, S, H] in the layout that they have: whether H or S runs fastest in memory."""
    return x[index] if x.stride(-1) == 1 else x.mT[index].mT


def _longer(x: Tensor, length: int) -> Tensor:
    """[B, K, S, H] with zeros behind, in the layout that it has."""
    batch, heads, old, width = x.shape
    if x.stride(-1) == 1:
        wide = x.new_zeros(batch, heads, length, width)
    else:
        wide = x.new_zeros(batch, heads, width, length).mT
    wide[:, :, :old] = x
    return wide
