"""Linear layers in bfloat16 on a CPU whose few rows of a decoding step are sums over the columns of the weight.

W x is the sum of W's columns, each times a number of x: a bag of embeddings with a weight each, as PyTorch calls it.
The kernel that it has for those from FBGEMM asks for memory ahead of using it, which its matrix products do not: they
wait for half of the time where weights are in no cache.
"""

import platform
from collections.abc import Iterator
from functools import cache, lru_cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcli.engine.memory import memory_limit, use_huge_pages
from mmcli.layers import kernels
from mmcli.layers.linear import SideBySide
from mmcli.layers.packed import PackedLinear, PackedTable, packing_works
from mmcli.layers.replacing import Place, replace_each
from mmcli.layers.table import Table
from mmcli.layers.trial import succeeds

LARGE = 1 << 18  # numbers of a weight from which on another form of it pays in a step
# More read packed weights as fast as the memory is, and waiting for each other costs more than reading.
MOST_THREADS = 8
MOST_ROWS = 4  # of a product: of more, reading the weight once for all of them is faster
WIDTHS = (128, 64)  # outputs that are summed together: of fewer the kernel has less to read in a row
SHARES = 4  # of the outputs that each thread should have, so that none waits long for the last one
PLACES = 1 << 18  # columns, cut to a width, that are summed by one call: what names them stays in the cache
PACKED_AT_ONCE = 8  # weights


class Columns:
    """A weight [N, K] by its columns, in parts of some outputs: rows [R, K] → [R, N], both in bfloat16.

    Numbers are added up in float32, column by column: a row's digits depend neither on others nor on threads.
    """

    def __init__(self, *weights: Tensor):
        """Several stand below each other: their outputs are side by side."""
        self.outputs, self.inputs = sum(map(len, weights)), weights[0].shape[1]
        threads = torch.get_num_threads()
        self.width = next((w for w in WIDTHS if self.outputs >= SHARES * threads * w), WIDTHS[-1])
        self.parts = torch.empty(-(-self.outputs // self.width), self.inputs, self.width, dtype=weights[0].dtype)
        use_huge_pages(self.parts.data_ptr(), self.parts.nbytes)
        self.parts[-1].zero_()
        first = 0
        for weight in weights:
            self._fill(first, weight.detach())
            first += len(weight)
        self.at_once = max(1, PLACES // self.inputs)  # parts of one call
        self.tables = [(len(parts), parts.view(-1, self.width)) for parts in self.parts.split(self.at_once)]

    def _fill(self, first: int, weight: Tensor) -> None:
        """The outputs from `first` on; one part after another is what PyTorch transposes fastest."""
        while len(weight):
            place = first % self.width
            rows, weight = weight[: self.width - place], weight[self.width - place :]
            self.parts[first // self.width][:, place : place + len(rows)].copy_(rows.t())
            first += len(rows)

    def product(self, rows: Tensor) -> Tensor:
        """See above. As few operations as it takes: behind gigabytes of weights none is in the cache."""
        count = len(rows)
        indices, offsets = _bags(self.inputs, count)
        sums, weights = [], weights_of(rows, min(len(self.parts), self.at_once))
        for parts, table in self.tables:
            bags = parts * count
            size = bags * self.inputs
            y = torch.embedding_bag(table, indices[:size], offsets[:bags], mode=0, per_sample_weights=weights[:size])[0]
            sums.append(y)
        y = sums[0] if len(sums) == 1 else torch.cat(sums)
        if count > 1:
            y = y.view(-1, count, self.width).transpose(0, 1).reshape(count, -1)
        return y.view(count, -1)[:, : self.outputs]


def weights_of(rows: Tensor, parts: int) -> Tensor:
    """Rows [R, K] once for every part, one after another."""
    return rows.repeat(parts, 1).view(-1)


@lru_cache(maxsize=16)
def _bags(inputs: int, rows: int) -> tuple[Tensor, Tensor]:
    """The indices and offsets that `torch.embedding_bag` takes for the products of some rows: the columns of part after
    part, once a row, and where each of these bags begins."""
    parts = max(1, PLACES // inputs)
    indices = torch.arange(parts * inputs, dtype=torch.int32).view(parts, 1, inputs).expand(-1, rows, -1)
    return indices.reshape(-1), torch.arange(0, parts * rows * inputs, inputs, dtype=torch.int32)


class StepLinear(nn.Module):
    """y = x Wᵀ + b in bfloat16: [..., K] → [..., N], the numbers of `nn.Linear` up to rounding."""

    def __init__(self, layer: nn.Linear | SideBySide, many: nn.Module):
        """`many` computes the same of many rows: the layer itself, or another form of it."""
        super().__init__()
        layers = _linears(layer)
        self.columns = Columns(*(part.weight for part in layers))  # no buffer: it can be neither moved nor saved
        biases = [torch.zeros_like(part.weight[:, 0]) if part.bias is None else part.bias for part in layers]
        self.bias = torch.cat(biases).detach() if any(part.bias is not None for part in layers) else None
        self.many = many

    def forward(self, x: Tensor) -> Tensor:
        if _are_many(x):
            y: Tensor = self.many(x)
            return y
        y = self.columns.product(x.reshape(-1, x.shape[-1]))
        y = y if self.bias is None else y + self.bias
        return y.view(*x.shape[:-1], -1)


class StepTable(Table):
    """The same table, whose logits of few rows are such sums."""

    def __init__(self, table: Table, many: Table):
        rows, width = table.weight.shape
        super().__init__(rows, width, _weight=table.weight.detach(), _freeze=True)
        self.columns, self.many = Columns(table.weight), many

    def logits(self, hidden: Tensor, vocabulary: int | None = None, cap: float | None = None) -> Tensor:
        if _are_many(hidden):
            return self.many.logits(hidden, vocabulary, cap)
        y = self.columns.product(hidden.reshape(-1, hidden.shape[-1]))
        return kernels.floats(y[:, :vocabulary].view(*hidden.shape[:-1], -1), cap)


def _are_many(x: Tensor) -> bool:
    return x.numel() > MOST_ROWS * x.shape[-1]


def for_steps(module: nn.Module) -> None:
    """Replace every large bfloat16 linear layer and head below `module`, which is on a CPU, by one for steps.

    For the few rows of a step the weights are in memory once more. Many rows meet them as they are, mapped from their
    file where they were, or packed for oneDNN where they fill an eighth of what this process may have, or less. Where
    two copies would fill more than three quarters of it, or where there are many threads, all rows meet packed ones,
    and the weights as they were are not used again; where even these would fill more than half, nothing is done.
    """
    found = sorted(_large(module), key=lambda place: _bytes(place[2]))  # the largest is begun with
    if not found:
        return
    size, limit = sum(_bytes(child) for *_, child in found), memory_limit()
    limit, packs = limit or 100 * size, packing_works(torch.bfloat16)
    if torch.get_num_threads() <= MOST_THREADS and sums_work() and 2 * size <= 0.75 * limit:
        replace_each(found, partial(_step_form, packs=packs and 8 * size <= limit), PACKED_AT_ONCE)
    elif packs and 2 * size <= limit:
        replace_each(found, _packed_form, 1)  # by all threads together


def _large(module: nn.Module) -> Iterator[Place]:
    """Large bfloat16 layers and heads; those side by side are one."""
    for name, child in module.named_children():
        one = type(child) in (nn.Linear, SideBySide) or (type(child) is Table and child.is_head)
        if not one:
            yield from _large(child)
        elif _is_large(child):
            yield module, name, child


def _is_large(layer: nn.Module) -> bool:
    weights = _weights(layer)
    return sum(map(Tensor.numel, weights)) >= LARGE and weights[0].dtype == torch.bfloat16


def _bytes(layer: nn.Module) -> int:
    return sum(weight.nbytes for weight in _weights(layer))


def _weights(layer: Any) -> list[Tensor]:
    return [part.weight for part in _linears(layer)] if isinstance(layer, SideBySide) else [layer.weight]


def _linears(layer: nn.Linear | SideBySide) -> list[Any]:
    return [layer] if isinstance(layer, nn.Linear) else list(layer)


def _step_form(layer: nn.Linear | SideBySide | Table, packs: bool) -> nn.Module:
    many = _packed_form(layer) if packs else layer
    if isinstance(layer, Table):
        assert isinstance(many, Table)
        return StepTable(layer, many)
    return StepLinear(layer, many)


def _packed_form(layer: nn.Linear | SideBySide | Table) -> nn.Module:
    if isinstance(layer, Table):
        return PackedTable(layer)
    if isinstance(layer, SideBySide):
        return SideBySide(PackedLinear(part.weight, part.bias) for part in _linears(layer))
    return PackedLinear(layer.weight, layer.bias)


@cache
def sums_work() -> bool:
    """Whether `Columns` computes products here by FBGEMM's kernel: other CPUs have none that is any faster."""
    if platform.machine() not in ("x86_64", "AMD64") or "fbgemm" not in torch.backends.quantized.supported_engines:
        return False
    weight, x = torch.linspace(-1, 1, 80 * 32).view(80, 32).bfloat16(), torch.linspace(-3, 2, 96).view(3, 32).bfloat16()
    exact = F.linear(x.float(), weight.float())
    return succeeds(lambda: torch.allclose(Columns(weight).product(x).float(), exact, atol=0.5))
