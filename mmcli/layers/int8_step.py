"""Linear layers in int8 for the few rows of a decoding step on the CPU, by FBGEMM's product of packed weights.

And for the many rows of a prefix by oneDNN's, which has the matrix units of newer CPUs (AMX).
"""

import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from mmcli.layers import kernels
from mmcli.layers.int8 import (
    LARGEST,
    ZERO,
    Int8Embedding,
    Int8Linear,
    RoundedLinear,
    computes_the_same,
    packed_kind,
    packing_works,
)

MANY = 64  # tokens of a row from which on oneDNN multiplies faster


class StepInt8Linear(RoundedLinear):
    """The numbers of `Int8Linear`, up to rounding, for the few rows of a step: [..., K] → [..., N], in the type of x.

    FBGEMM reads packed weights that are in no cache yet two to three times as fast; for hundreds of rows it gains
    nothing. `step_packing_works` tells whether this PyTorch and CPU have it.
    """

    bias: Tensor | None
    many: "ManyRows | None" = None

    def fill(self, whole: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        self.outputs = len(whole)
        _silence_warning()
        zeros = torch.zeros(len(scale), dtype=torch.long)
        quantised = torch._make_per_channel_quantized_tensor(whole, scale.double(), zeros, 0)
        self.packed = torch.ops.quantized.linear_prepack(quantised, None)  # opaque: it can be neither moved nor saved
        self.register_buffer("bias", bias)

    @classmethod
    def stacked(cls, layers: "Sequence[StepInt8Linear]") -> "StepInt8Linear":
        """Layers of one input as one, their outputs side by side."""
        weights = [torch.ops.quantized.linear_unpack(layer.packed)[0] for layer in layers]
        biases = [weight.q_per_channel_scales().new_zeros(len(weight)) for weight in weights]
        biases = [zero if layer.bias is None else layer.bias for layer, zero in zip(layers, biases, strict=True)]
        stacked = cls.rounded(
            torch.cat([weight.int_repr() for weight in weights]),
            torch.cat([weight.q_per_channel_scales() for weight in weights]),
            torch.cat(biases).float() if any(layer.bias is not None for layer in layers) else None,
        )
        if all(layer.many is not None for layer in layers):
            stacked.expect_many()
        return stacked

    def expect_many(self) -> None:
        """Have the weight in oneDNN's order as well, for passes of many tokens, where that pays and this PyTorch can.

        The last digits are then others than FBGEMM's, so which of the two multiplies must not depend on what shares a
        batch: the tokens of a row decide.
        """
        if packing_works():
            weight = torch.ops.quantized.linear_unpack(self.packed)[0]
            self.many = ManyRows(weight.int_repr(), weight.q_per_channel_scales().float())

    def operand(self, x: Tensor, overwrite: bool = False) -> tuple[Tensor, Tensor]:
        """x [..., T, K] → what `product` takes, and by what its result is to be multiplied [R, 1].

        With `overwrite` x is of no use afterwards.
        """
        rows = x.reshape(-1, x.shape[-1]).float()
        rows, largest = unit_rows_(rows) if overwrite else unit_rows(rows)
        return (in_uint8(rows) if self._takes_many(x) else rows), largest

    def _takes_many(self, x: Tensor) -> bool:
        return self.many is not None and x.ndim > 2 and x.shape[-2] >= MANY

    def product(self, operand: Tensor) -> Tensor:
        """Float32 [R, N]."""
        if operand.dtype == torch.uint8:
            assert self.many is not None
            return self.many(operand)
        return step_product(operand, self.packed)

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.float32 and not self._takes_many(x):
            # A step has tens of these: what would change neither shape nor type is not called.
            rows, largest = unit_rows(x)
            return self._scaled(step_product(rows, self.packed), largest)
        operand, largest = self.operand(x)
        return self._scaled(self.product(operand), largest).to(x.dtype).view(*x.shape[:-1], self.outputs)

    def _scaled(self, y: Tensor, largest: Tensor) -> Tensor:
        bias = self.bias
        return y.mul_(largest) if bias is None else torch.addcmul(bias, y, largest)


class ManyRows:
    """An int8 weight [N, K] with scales [N] in oneDNN's order: uint8 rows [R, K] as `in_uint8` makes them → float32
    [R, N], the same digits however many rows there are."""

    def __init__(self, whole: Tensor, scale: Tensor):
        self._packed = torch.ops.onednn.qlinear_prepack(whole, None)
        self._scale, self._zeros = scale, torch.zeros(len(scale), dtype=torch.long)

    def __call__(self, rows: Tensor) -> Tensor:
        unit = 1 / LARGEST
        product: Tensor = torch.ops.onednn.qlinear_pointwise.default(
            rows, unit, ZERO, self._packed, self._scale, self._zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return product


class StepInt8Table(Int8Embedding):
    """A decoder's table of tokens, as `Table`, whose logits come from packed integers."""

    def __init__(self, whole: Tensor, scale: Tensor, dtype: torch.dtype = torch.float32):
        """Rows are given in `dtype`."""
        nn.Module.__init__(self)
        self.fill(whole, scale, dtype)
        self.head = StepInt8Linear.rounded(whole, scale, None)

    def logits(self, hidden: Tensor, vocabulary: int | None = None, cap: float | None = None) -> Tensor:
        """As `Table.logits`."""
        return kernels.floats(self.head(hidden)[..., :vocabulary], cap)


def unit_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [R, K] divided by their largest numbers, and these [R, 1]."""
    largest = x.abs().amax(dim=-1, keepdim=True).clamp_(min=1e-30)
    return x / largest, largest


def unit_rows_(x: Tensor) -> tuple[Tensor, Tensor]:
    """The same written over x: many numbers are not in the processor's cache any more when new memory is written."""
    largest = torch.maximum(x.amax(dim=-1, keepdim=True), x.amin(dim=-1, keepdim=True).neg_()).clamp_(min=1e-30)
    return x.div_(largest), largest


def in_uint8(x: Tensor) -> Tensor:
    """Numbers between -1 and 1 in int8, `ZERO` added, as oneDNN takes its left factor."""
    rounded = torch.quantize_per_tensor(x, 1 / LARGEST, ZERO, torch.quint8)
    # The same memory: `int_repr` copies it number by number, which takes three times as long as rounding.
    whole = torch.empty(0, dtype=torch.uint8, device=x.device)
    return whole.set_(rounded.untyped_storage(), 0, rounded.shape, rounded.stride())


def step_product(x: Tensor, packed: Any) -> Tensor:
    """Rows between -1 and 1, float32 [..., K], rounded to int8, times weights in FBGEMM's order → float32 [..., N]."""
    product: Tensor = _linear()(x, 1 / LARGEST, ZERO, packed)
    return product


@cache
def _linear() -> Any:
    """FBGEMM's product as PyTorch's dispatcher has it. What stands in front of it in Python looks for the overload, and
    for imitations of packed weights, which takes as long as two small operations."""
    return torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32.default.op


@cache
def _silence_warning() -> None:
    """PyTorch means to drop quantised tensors, and says so at the first one: then there is no packing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        one = torch.zeros(1, 1, dtype=torch.int8)
        torch._make_per_channel_quantized_tensor(one, torch.ones(1), torch.zeros(1, dtype=torch.long), 0)


@cache
def step_packing_works() -> bool:
    """Whether `StepInt8Linear` runs here and computes what `Int8Linear` does."""
    return computes_the_same(StepInt8Linear)


def step_kind() -> type[RoundedLinear]:
    """The int8 form for the few rows of a step."""
    return StepInt8Linear if step_packing_works() else Int8Linear


def head_kind() -> type[RoundedLinear]:
    """The int8 form for the logits of a step: few rows and many outputs."""
    return StepInt8Linear if step_packing_works() else packed_kind()
