"""Linear layers in bfloat16 on a CPU whose few rows of a decoding step are sums over the columns of the weight.

W x is the sum of W's columns, each times a number of x: a bag of embeddings with a weight each, as PyTorch calls it.
The kernel that it has for those from FBGEMM asks for memory ahead of using it, which its matrix products do not: they
wait for half of the time where weights are in no cache.
"""

import platform
from functools import cache, lru_cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcli.engine.memory import memory_limit, use_huge_pages
from mmcli.errors import raise_if_interrupted
from mmcli.layers import kernels
from mmcli.layers.packed import PackedLinear, PackedTable, packing_works
from mmcli.layers.replacing import Place, replace_each
from mmcli.layers.table import Table

LARGE = 1 << 18  # numbers of a weight from which on another form of it pays in a step
MOST_ROWS = 4  # of a product: of more, reading the weight once for all of them is faster
WIDTHS = (128, 64)  # outputs that are summed together: of fewer the kernel has less to read in a row
SHARES = 4  # of the outputs that each thread should have, so that none waits long for the last one
PLACES = 1 << 18  # columns, cut to a width, that are summed by one call: what names them stays in the cache
PACKED_AT_ONCE = 8  # weights


class Columns:
    """A weight [N, K] by its columns, in parts of some outputs: rows [R, K] → [R, N], both in bfloat16.

    Numbers are added up in float32, column by column: a row's digits depend neither on others nor on threads.
    """

    def __init__(self, weight: Tensor):
        self.outputs, self.inputs = weight.shape
        threads = torch.get_num_threads()
        self.width = next((w for w in WIDTHS if len(weight) >= SHARES * threads * w), WIDTHS[-1])
        parts = -(-self.outputs // self.width)
        self.parts = torch.empty(parts, self.inputs, self.width, dtype=weight.dtype)
        use_huge_pages(self.parts.data_ptr(), self.parts.nbytes)
        for part, rows in zip(self.parts, weight.detach().split(self.width), strict=True):
            part[:, : len(rows)].copy_(rows.t())
            part[:, len(rows) :].zero_()

    def product(self, rows: Tensor) -> Tensor:
        """See above."""
        count = len(rows)
        calls = []
        for parts in self.parts.split(max(1, PLACES // self.inputs)):
            numbers, starts = _places(self.inputs, count)
            summed = len(parts) * count
            factors = rows.expand(len(parts), -1, -1).reshape(-1)
            y = torch.embedding_bag(
                parts.view(-1, self.width),
                numbers[: summed * self.inputs],
                starts[:summed],
                mode=0,
                per_sample_weights=factors,
            )[0]
            calls.append(y.view(len(parts), count, self.width))
        y = calls[0] if len(calls) == 1 else torch.cat(calls)
        return y.transpose(0, 1).reshape(count, -1)[:, : self.outputs]


@lru_cache(maxsize=16)
def _places(inputs: int, rows: int) -> tuple[Tensor, Tensor]:
    """What `torch.embedding_bag` takes for the products of some rows: the columns of part after part, once a row, and
    where each of these bags begins."""
    parts = max(1, PLACES // inputs)
    numbers = torch.arange(parts * inputs, dtype=torch.int32).view(parts, 1, inputs).expand(-1, rows, -1)
    return numbers.reshape(-1), torch.arange(0, parts * rows * inputs, inputs, dtype=torch.int32)


class StepLinear(nn.Module):
    """y = x Wᵀ + b in bfloat16: [..., K] → [..., N], the numbers of `nn.Linear` up to rounding."""

    def __init__(self, layer: nn.Linear, many: nn.Module):
        """`many` computes the same of many rows: the layer itself, or another form of it."""
        super().__init__()
        self.columns = Columns(layer.weight)  # no buffer: it can be neither moved nor saved
        self.many, self.bias = many, layer.bias

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
    two copies would fill more than three quarters of it, all rows meet packed ones, and the weights as they were are
    not used again; where even these would fill more than half, nothing is done.
    """
    found: list[Place] = [
        (owner, name, child)
        for owner in module.modules()
        for name, child in owner.named_children()
        if (type(child) is nn.Linear or (type(child) is Table and child.is_head)) and _is_large(child.weight)
    ]
    if not found:
        return
    found.sort(key=lambda place: place[2].weight.nbytes)  # the largest is begun with
    size, limit = sum(child.weight.nbytes for *_, child in found), memory_limit()
    limit, packs = limit or 100 * size, packing_works(torch.bfloat16)
    if sums_work() and 2 * size <= 0.75 * limit:
        replace_each(found, partial(_step_form, packs=packs and 8 * size <= limit), PACKED_AT_ONCE)
    elif packs and 2 * size <= limit:
        replace_each(found, _packed_form, 1)  # by all threads together


def _step_form(layer: nn.Linear | Table, packs: bool) -> nn.Module:
    many = _packed_form(layer) if packs else layer
    if isinstance(layer, Table):
        assert isinstance(many, Table)
        return StepTable(layer, many)
    return StepLinear(layer, many)


def _packed_form(layer: nn.Linear | Table) -> nn.Module:
    return PackedTable(layer) if isinstance(layer, Table) else PackedLinear(layer.weight, layer.bias)


def _is_large(weight: Tensor) -> bool:
    return weight.dtype == torch.bfloat16 and weight.numel() >= LARGE


@cache
def sums_work() -> bool:
    """Whether `Columns` computes products here by FBGEMM's kernel: other CPUs have none that is any faster."""
    if platform.machine() not in ("x86_64", "AMD64") or "fbgemm" not in torch.backends.quantized.supported_engines:
        return False
    weight, x = torch.linspace(-1, 1, 80 * 32).view(80, 32).bfloat16(), torch.linspace(-3, 2, 96).view(3, 32).bfloat16()
    try:
        return torch.allclose(Columns(weight).product(x).float(), F.linear(x.float(), weight.float()), atol=0.5)
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise_if_interrupted(error)
        return False
