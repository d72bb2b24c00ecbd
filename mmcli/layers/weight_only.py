"""Weights kept in 8- or 4-bit integers and multiplied out as they are used; what goes through them stays as it is.

A step of one row reads every weight of the decoder and computes little with it, so its time is that of the bytes. (The
scheme is that of LLM.int8(), arXiv:2208.07339, and of GPTQ's storage, arXiv:2210.17323, with plain rounding.)
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcli.engine.memory import memory_limit
from mmcli.hub.quantized import BITS, GROUP, Storage, multiplied, quantize
from mmcli.hub.weights import TakesWeights
from mmcli.layers import kernels
from mmcli.layers.int8 import Int4Linear, int8_product
from mmcli.layers.int8_step import StepInt8Table, step_kind, step_packing_works
from mmcli.layers.replacing import Place, replace_each
from mmcli.layers.table import Table

LEAST = 1 << 20  # numbers of a weight that is worth it: smaller ones cost their start, whatever their size
PACKED_AT_ONCE = 8  # weights


class InIntegers(TakesWeights):
    """A part whose `weight` is kept in integers: `stored` and `scale`, once it was given."""

    stored: Tensor
    scale: Tensor

    def __init__(self, weight: Tensor, storage: Storage):
        """`weight` is without memory, and stands for what is to come."""
        super().__init__()
        self.storage: Storage = storage
        self.register_parameter("weight", nn.Parameter(weight, requires_grad=False))

    @property
    def bits(self) -> float:
        """Of a number in memory."""
        return BITS[self.storage]

    def keep(self, stored: Tensor, scale: Tensor) -> None:
        """Have these in the weight's place."""
        del self.weight
        self.register_buffer("stored", stored)
        self.register_buffer("scale", scale)


class WeightOnlyLinear(InIntegers):
    """y = x Wᵀ + b with W in integers: [..., K] → [..., N], in the type of x.

    It is made without memory, like the layer that it stands for, and quantises the weight that it is given.
    """

    bias: nn.Parameter | None

    def __init__(self, layer: nn.Linear, storage: Storage):
        super().__init__(layer.weight, storage)
        self.out_features, self.in_features = layer.out_features, layer.in_features
        self.register_parameter("bias", layer.bias)

    @property
    def shape(self) -> tuple[int, int]:
        """That of the weight: outputs, inputs."""
        return self.out_features, self.in_features

    @classmethod
    def of(cls, layer: nn.Module, storage: Storage) -> "WeightOnlyLinear":
        """A layer that has its weights, in integers where it is not yet."""
        if isinstance(layer, cls):
            return layer
        assert isinstance(layer, nn.Linear)
        whole = cls(layer, storage)
        whole.keep(*quantize(layer.weight, storage))
        return whole

    @classmethod
    def stacked(cls, parts: Sequence[nn.Module]) -> "WeightOnlyLinear":
        """Layers of one input as one, their outputs side by side: the same numbers, since every row has its scales.

        At least one is a `WeightOnlyLinear`; small ones beside it, which are not yet, are quantised.
        """
        storage = next(part.storage for part in parts if isinstance(part, cls))
        layers = [cls.of(part, storage) for part in parts]
        outputs, first = sum(layer.out_features for layer in layers), layers[0]
        whole = cls(nn.Linear(first.in_features, outputs, bias=False, device="meta"), first.storage)
        stored = torch.cat([layer.stored for layer in layers])
        whole.keep(stored, torch.cat([layer.scale for layer in layers]))
        if any(layer.bias is not None for layer in layers):
            zeros = (layer.scale.new_zeros(layer.out_features) for layer in layers)
            biases = [none if layer.bias is None else layer.bias for layer, none in zip(layers, zeros, strict=True)]
            whole.bias = nn.Parameter(torch.cat(biases), requires_grad=False)
        return whole

    def take(self, name: str, tensor: Tensor, scale: Tensor | None, dtype: torch.dtype) -> None:
        if name == "bias":
            self.bias = nn.Parameter(tensor.to(dtype), requires_grad=False)
        else:
            self.keep(*in_storage(tensor, scale, self.storage))

    def forward(self, x: Tensor) -> Tensor:
        y = product(x.reshape(-1, x.shape[-1]), self.stored, self.scale)
        if self.bias is not None:
            y = y + self.bias
        return y.view(*x.shape[:-1], -1)


class QuantisedTable(InIntegers):
    """A decoder's table of tokens in int8, a scale a row; see `Table`."""

    def __init__(self, table: Table):
        super().__init__(table.weight, "int8")
        self.dtype, self.num_embeddings, self.is_head = table.weight.dtype, table.num_embeddings, table.is_head

    def take(self, name: str, tensor: Tensor, scale: Tensor | None, dtype: torch.dtype) -> None:
        self.keep(*in_storage(tensor, scale, "int8"))
        self.dtype = dtype

    def forward(self, tokens: Tensor) -> Tensor:
        return (self.stored[tokens] * self.scale[tokens].unsqueeze(-1)).to(self.dtype)

    def logits(self, hidden: Tensor, vocabulary: int | None = None, cap: float | None = None) -> Tensor:
        """As `Table.logits`."""
        rows = hidden.reshape(-1, hidden.shape[-1])
        stored, scale = self.stored[:vocabulary], self.scale[:vocabulary]
        rounds = rows.device.type == "cpu" and not rows.requires_grad
        y = int8_product(rows, stored, scale) if rounds else product(rows, stored, scale)
        return kernels.floats(y.view(*hidden.shape[:-1], -1), cap)


def product(rows: Tensor, stored: Tensor, scale: Tensor) -> Tensor:
    """x Wᵀ of rows [R, K] and a weight [N, K] in integers → [R, N], in the type of the rows; with their gradients."""
    if kernels.quantised_rows(rows, stored):
        from mmcli.layers.kernels import quantised

        return quantised.product(rows, stored, scale)
    if torch.is_grad_enabled() and rows.requires_grad:
        return _Product.apply(rows, stored, scale)
    return F.linear(rows, multiplied_out(stored, scale, rows.dtype))


class _Product(torch.autograd.Function):
    """A product whose weight is multiplied out again on the way back: between the two, the integers are all there is.

    (As the backward pass of QLoRA, arXiv:2305.14314.)
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, stored: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(stored, scale)
        return F.linear(rows, multiplied_out(stored, scale, rows.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        stored, scale = ctx.saved_tensors
        return gradient @ multiplied_out(stored, scale, gradient.dtype), None, None


def in_storage(tensor: Tensor, scale: Tensor | None, storage: Storage) -> tuple[Tensor, Tensor]:
    """A matrix as a file holds it → its integers and scales in `storage`: as they are where they are so."""
    there: dict[torch.dtype, Storage] = {torch.int8: "int8", torch.uint8: "int4"}
    if scale is not None and there.get(tensor.dtype) == storage:
        return tensor, scale
    return quantize(tensor if scale is None else multiplied(tensor, scale), storage)


def multiplied_out(stored: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """The matrix that integers and scales mean, in `dtype`."""
    if kernels.available(stored.device):
        from mmcli.layers.kernels.quantised import multiply_out

        return multiply_out(stored, scale, dtype)
    return multiplied(stored, scale).to(dtype)


def keep_in(storage: Storage, *parts: nn.Module) -> None:
    """Make the large layers below `parts`, which are on the meta device, keep their weights in `storage`.

    A table of tokens is kept in int8 either way: each of its rows is a vector that enters as it is, and its product
    decides which token is written.
    """
    for owner in [owner for part in parts for owner in part.modules()]:
        for name, child in list(owner.named_children()):
            if type(child) is nn.Linear and child.weight.numel() >= LEAST and child.in_features % GROUP == 0:
                setattr(owner, name, WeightOnlyLinear(child, storage))
            elif isinstance(child, Table) and child.weight.numel() >= LEAST:
                setattr(owner, name, QuantisedTable(child))


def for_cpu(model: nn.Module) -> None:
    """Give what a model on the CPU keeps in integers the form in which that multiplies fastest.

    8-bit integers meet numbers rounded to 8 bits as well, a scale a row, as in `Int8Linear`; by FBGEMM, since oneDNN's
    product of a single row takes twice the time on CPUs with matrix units (AMX). Tables get a second copy of their
    integers for the logits, unless all integers would then fill more than half of what this process may have.
    """
    found: list[Place] = [
        (owner, name, child)
        for owner in model.modules()
        for name, child in owner.named_children()
        if isinstance(child, InIntegers)
    ]
    if not found:
        return
    found.sort(key=lambda place: place[2].stored.nbytes)
    size = sum(child.stored.nbytes * (1 + _makes_logits(child)) for *_, child in found)
    limit = memory_limit()
    copies = step_packing_works() and (limit is None or 2 * size <= limit)
    # FBGEMM puts a weight in its order with one thread, so several are; 4-bit integers are by all threads together.
    in_bytes = any(isinstance(child, WeightOnlyLinear) and child.storage == "int8" for *_, child in found)
    replace_each(found, partial(_form_for_cpu, copies=copies), PACKED_AT_ONCE if in_bytes else 1)


def _makes_logits(part: InIntegers) -> bool:
    return isinstance(part, QuantisedTable) and part.is_head


def _form_for_cpu(part: InIntegers, copies: bool) -> nn.Module:
    if isinstance(part, QuantisedTable):
        copied = copies and _makes_logits(part)
        return StepInt8Table(part.stored, part.scale.float(), part.dtype) if copied else part
    assert isinstance(part, WeightOnlyLinear)
    if part.storage == "int4":
        return Int4Linear(part.stored, part.scale, part.bias)
    return step_kind().rounded(part.stored, part.scale.float(), None if part.bias is None else part.bias.float())
