"""Linear layers in 8-bit integers on the CPU: weights with a scale a row, numbers with one a token; and in 4-bit."""

from collections.abc import Sequence
from functools import cache
from typing import Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcli.hub.quantized import GROUP, multiplied, rows_at_a_time, unpack
from mmcli.hub.weights import TakesWeights
from mmcli.layers.trial import succeeds

LARGEST = 127
ZERO = 128  # oneDNN wants its left factor in uint8, in which this stands for 0
BLOCK = 16  # outputs that the product with 4-bit integers computes at a time


class Quantisable(nn.Module):
    """A model that knows a faster arithmetic for the CPU than one type for everything."""

    def expect_int8(self) -> None:
        """Before weights are read: have those that `quantise` puts in int8 rounded one by one, as they are read.

        All of them in float32 would take four times the memory that the model needs then. Nothing by default.
        """

    def quantise(self) -> bool:
        """Choose it, where this CPU has it; answers stay as good. Fusing comes behind it.

        True: its products are in int8 now. The type of its other weights may have changed either way.
        """
        raise NotImplementedError


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """[R, K] → (int8 [R, K], float32 scales [R, 1]) such that int8 × scale is closest to x, row by row."""
    scale = x.abs().amax(dim=-1, keepdim=True).float().clamp_(min=1e-30).mul_(1 / LARGEST)
    return (x / scale).round_().to(torch.int8), scale


def quantize_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """[N, K] in any floating-point type → (int8 [N, K], float32 scales [N])."""
    whole = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
    scale = torch.empty(len(weight), device=weight.device)
    count = rows_at_a_time(weight)
    for first in range(0, len(weight), count):
        part = slice(first, first + count)
        whole[part], scales = quantize_rows(weight[part].float())
        scale[part] = scales[:, 0]
    return whole, scale


class RoundedLinear(nn.Module):
    """A linear layer in a form of int8, made of a floating-point weight or of integers and their scales."""

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__()
        self.fill(*quantize_weight(weight), None if bias is None else bias.float())

    @classmethod
    def rounded(cls, whole: Tensor, scale: Tensor, bias: Tensor | None) -> Self:
        """Of int8 [N, K], float32 scales [N] and a float32 bias [N]."""
        layer = cls.__new__(cls)
        nn.Module.__init__(layer)
        layer.fill(whole, scale, bias)
        return layer

    def fill(self, whole: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        """Keep these, which are as for `rounded`, as this form does."""
        raise NotImplementedError


class Int8Linear(RoundedLinear):
    """y = x Wᵀ + b with W and x in int8 and sums in int32: [..., K] → [..., N], in the type of x.

    Every row of x has its own scale, so that what shares a batch with it changes nothing. (The scheme of LLM.int8(),
    arXiv:2208.07339, without its outliers.)
    """

    weight: Tensor  # int8 [N, K]
    scale: Tensor  # float32 [N]
    bias: Tensor  # float32 [N]

    def fill(self, whole: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        self.register_buffer("weight", whole)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", torch.zeros_like(scale) if bias is None else bias)

    @classmethod
    def of(cls, layer: nn.Linear) -> "Int8Linear":
        return cls(layer.weight, layer.bias)

    @classmethod
    def stacked(cls, layers: "Sequence[Int8Linear]") -> "Int8Linear":
        """Layers of one input as one, their outputs side by side: the same numbers, since every row has its scale."""
        parts = ([layer.get_buffer(name) for layer in layers] for name in ("weight", "scale", "bias"))
        return cls.rounded(*map(torch.cat, parts))

    def forward(self, x: Tensor) -> Tensor:
        y = int8_product(x.reshape(-1, x.shape[-1]), self.weight, self.scale).add_(self.bias)
        return y.to(x.dtype).view(*x.shape[:-1], -1)


def int8_product(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """x [R, K] in any floating-point type, and a weight in int8 [N, K] with scales [N] → float32 [R, N]."""
    rows, own = quantize_rows(x)
    sums = torch._int_mm(rows, weight.t()).float()
    return sums.mul_(own).mul_(scale)  # in place: new memory costs more than a pass over it


class PackedInt8Linear(RoundedLinear):
    """The same numbers as `Int8Linear`, up to float32's rounding, from weights in the order in which oneDNN reads them.

    For many outputs it is two to three times as fast; for small layers its start costs more than it saves.
    `packing_works` tells whether this PyTorch has it.
    """

    def fill(self, whole: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        self.packed = torch.ops.onednn.qlinear_prepack(whole, None)  # opaque: it can be neither moved nor saved
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)
        self.register_buffer("zeros", torch.zeros(len(scale), dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        rows, scale = quantize_rows(x.reshape(-1, x.shape[-1]))
        shifted = (rows.short() + ZERO).to(torch.uint8)
        y = torch.ops.onednn.qlinear_pointwise(
            shifted, 1.0, ZERO, self.packed, self.scale, self.zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        y.mul_(scale)
        if self.bias is not None:
            y.add_(self.bias)
        return y.to(x.dtype).view(*x.shape[:-1], -1)


class Int4Linear(nn.Module):
    """y = x Wᵀ + b with W in 4-bit integers, a scale for each 32 columns, and x in bfloat16: for memory, not for speed.

    One row takes as long as with weights in bfloat16, and many rows take longer: PyTorch's product for it has no
    blocks of them.
    """

    def __init__(self, stored: Tensor, scale: Tensor, bias: Tensor | None):
        """`stored` uint8 [N, K / 2] and `scale` [N, K / 32] as in `mmcli/hub/quantized.py`."""
        super().__init__()
        self.outputs = len(stored)
        more = -len(stored) % BLOCK  # rows of zeros, without which PyTorch does not take it
        stored, scale = F.pad(stored, (0, 0, 0, more)), F.pad(scale, (0, 0, 0, more))
        scale = scale.to(torch.bfloat16).t().contiguous()
        self.packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(unpack(stored).int(), 1)
        self.register_buffer("scale", torch.stack([scale, torch.zeros_like(scale)], dim=-1))  # [K / 32, N, 2]
        self.register_buffer("bias", None if bias is None else bias.float())

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1]).to(torch.bfloat16)
        y = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, self.packed, GROUP, self.scale)[:, : self.outputs]
        if self.bias is not None:
            y = y.float() + self.bias
        return y.to(x.dtype).reshape(*x.shape[:-1], -1)


class Int8Embedding(nn.Module):
    """Rows of a table by their numbers, int [...] → [..., D] in the table's type, from a quarter of float32's bytes."""

    weight: Tensor  # int8 [R, D]
    scale: Tensor  # float32 [R]

    def __init__(self, weight: Tensor):
        super().__init__()
        self.fill(*quantize_weight(weight), weight.dtype)

    @classmethod
    def rounded(cls, whole: Tensor, scale: Tensor, dtype: torch.dtype) -> "Int8Embedding":
        """Of int8 [R, D] and float32 scales [R]; rows are given in `dtype`."""
        table = cls.__new__(cls)
        nn.Module.__init__(table)
        table.fill(whole, scale, dtype)
        return table

    def fill(self, whole: Tensor, scale: Tensor, dtype: torch.dtype) -> None:
        self.register_buffer("weight", whole)
        self.register_buffer("scale", scale)
        self.dtype = dtype

    def forward(self, numbers: Tensor) -> Tensor:
        return (self.weight[numbers] * self.scale[numbers].unsqueeze(-1)).to(self.dtype)


class ReadInInt8(TakesWeights):
    """What stands for a linear layer, or a table, until its weight is read, and then has that in int8."""

    whole: Tensor  # int8 [N, K]
    scale: Tensor  # float32 [N]
    bias: nn.Parameter | None

    def __init__(self, layer: nn.Linear | nn.Embedding):
        """`layer` is without memory."""
        super().__init__()
        self.register_parameter("weight", cast(nn.Parameter, layer.weight))
        self.register_parameter("bias", cast(nn.Parameter | None, getattr(layer, "bias", None)))
        self.dtype = layer.weight.dtype

    def take(self, name: str, tensor: Tensor, scale: Tensor | None, dtype: torch.dtype) -> None:
        if name == "bias":
            self.bias = nn.Parameter(tensor.float(), requires_grad=False)
            return
        if scale is None or tensor.dtype != torch.int8:
            whole, scale = quantize_weight(tensor if scale is None else multiplied(tensor, scale))
        else:
            whole = tensor.clone()  # a tensor of the file would keep all of that in memory
        del self.weight
        self.register_buffer("whole", whole)
        self.register_buffer("scale", scale.float())
        self.dtype = dtype


@cache
def packing_works() -> bool:
    """Whether `PackedInt8Linear` runs here and computes what `Int8Linear` does."""
    return computes_the_same(PackedInt8Linear)


def computes_the_same(kind: type[RoundedLinear]) -> bool:
    """Whether that form, whose operators are not PyTorch's public ones, runs here and computes what `Int8Linear` does.

    Sums of 16 bits that overflow, which FBGEMM makes where there is no VNNI, show too.
    """
    weight = torch.linspace(-1, 1, 48 * 32).view(48, 32)
    weight[::2] = 1.0
    x = torch.linspace(-3, 2, 3 * 32).view(3, 32)
    x[0] = 2.0
    return succeeds(lambda: torch.allclose(kind(weight, None)(x), Int8Linear(weight, None)(x), rtol=1e-4, atol=1e-4))


def in_int8(module: nn.Module, kind: type[RoundedLinear] = Int8Linear) -> None:
    """Replace every linear layer below `module` by an int8 form of its weight and bias.

    `PackedInt8Linear` is for many rows at once, `StepInt8Linear` for the few of a step.
    """
    for part in list(module.modules()):
        for name, child in list(part.named_children()):
            if isinstance(child, nn.Linear):
                setattr(part, name, kind(child.weight, child.bias))
            elif isinstance(child, ReadInInt8):
                setattr(part, name, kind.rounded(child.whole, child.scale, child.bias))


def read_in_int8(module: nn.Module) -> None:
    """Have every linear layer below `module`, which is without memory, in int8 as soon as it is read."""
    for part in list(module.modules()):
        for name, child in list(part.named_children()):
            if isinstance(child, nn.Linear):
                setattr(part, name, ReadInInt8(child))


def packed_kind() -> type[RoundedLinear]:
    """The int8 form for many rows or many outputs: packed, where this PyTorch can."""
    return PackedInt8Linear if packing_works() else Int8Linear
