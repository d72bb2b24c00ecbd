"""Layers on the CPU from weights in the order in which oneDNN reads them, and in float32 their invariance.

What they compute of a row in float32 has the same digits whatever shares a batch with it, and however many threads
there are: a folder that is answered in batches of another size, or on a busier machine, gives the same bytes. PyTorch's
own products do not: they sum in another order for one row, for five or seven rows and two threads, or for one thread.
"""

from functools import cache
from types import MethodType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcli.layers import kernels
from mmcli.layers.table import Table
from mmcli.layers.trial import succeeds

LEAST_ROWS = 2  # of a product: a single one would be summed in another order


class PackedLinear(nn.Module):
    """y = x Wᵀ + b: [..., K] → [..., N], the numbers of `nn.Linear` up to the order of summation.

    For the few rows of a decoding step it was measured to take half the time of PyTorch's own product in float32 and a
    quarter in bfloat16, for hundreds of rows four fifths (AMD, Zen 4). `packing_works` tells whether this PyTorch has
    it.
    """

    packed: Tensor  # opaque: it can be neither moved nor saved

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__()
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)
        self.register_buffer("packed", packed, persistent=False)
        self.is_exact = weight.dtype == torch.float32
        self.register_buffer("bias", None if bias is None else bias.detach().contiguous(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        alone = self.is_exact and x.numel() == x.shape[-1]
        rows = x.reshape(1, -1).expand(LEAST_ROWS, -1).contiguous() if alone else x
        y: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self.packed, self.bias, "none", [], "")
        return y[0].view(*x.shape[:-1], -1) if alone else y


class PackedTable(Table):
    """The same table, whose logits come from a packed copy."""

    def __init__(self, table: Table):
        rows, width = table.weight.shape
        super().__init__(rows, width, _weight=table.weight.detach(), _freeze=True)
        self.head = PackedLinear(table.weight, None)

    def logits(self, hidden: Tensor, vocabulary: int | None = None, cap: float | None = None) -> Tensor:
        return kernels.floats(self.head(hidden)[..., :vocabulary], cap)


def pack(module: nn.Module) -> None:
    """Replace every float32 linear layer and table below `module`, which is on a CPU, by a packed one where this
    PyTorch can, and have oneDNN compute its convolutions."""
    if not packing_works():
        return
    for part in list(module.modules()):
        for name, child in list(part.named_children()):
            if type(child) is nn.Linear and child.weight.dtype == torch.float32:
                setattr(part, name, PackedLinear(child.weight, child.bias))
            elif type(child) is Table and child.weight.dtype == torch.float32:
                setattr(part, name, PackedTable(child))
            elif isinstance(child, nn.Conv2d) and child.padding_mode == "zeros":
                child._conv_forward = MethodType(_convolve, child)  # type: ignore[method-assign]


def _convolve(self: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """As `nn.Conv2d._conv_forward`, which gives 1 × 1 kernels to oneDNN with several threads alone."""
    if x.dtype != torch.float32 or isinstance(self.padding, str):
        return nn.Conv2d._conv_forward(self, x, weight, bias)
    y: Tensor = torch.mkldnn_convolution(x, weight, bias, self.padding, self.stride, self.dilation, self.groups)
    return y


@cache
def packing_works(dtype: torch.dtype = torch.float32) -> bool:
    """Whether `PackedLinear` runs here: its operators are not PyTorch's public ones, and not in every build."""
    weight, x = torch.linspace(-1, 1, 48 * 32).view(48, 32).to(dtype), torch.linspace(-3, 2, 3 * 32).view(3, 32)
    expected, near = F.linear(x, weight.float(), weight[:, 0].float()), 1e-4 if dtype == torch.float32 else 0.5

    def agrees() -> bool:
        y = PackedLinear(weight, weight[:, 0])(x.to(dtype))
        return y.dtype == dtype and torch.allclose(y.float(), expected, atol=near)

    return succeeds(agrees)
