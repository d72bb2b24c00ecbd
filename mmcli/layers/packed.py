"""Linear layers in float32 on the CPU from weights in the order in which oneDNN reads them."""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcli.errors import raise_if_interrupted


class PackedLinear(nn.Module):
    """y = x Wᵀ + b in float32: [..., K] → [..., N], the numbers of `nn.Linear` up to the order of summation.

    For the few rows of a decoding step it was measured to take half the time of PyTorch's own product, for hundreds of
    rows four fifths (AMD, Zen 4). What shares a batch with a row changes nothing. `packing_works` tells whether this
    PyTorch has it.
    """

    packed: Tensor  # opaque: it can be neither moved nor saved

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__()
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)
        self.register_buffer("packed", packed, persistent=False)
        self.register_buffer("bias", None if bias is None else bias.detach().contiguous(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")
        return y


def pack(module: nn.Module) -> None:
    """Replace every float32 linear layer below `module`, which is on a CPU, by a packed one where this PyTorch can."""
    if not packing_works():
        return
    for part in list(module.modules()):
        for name, child in list(part.named_children()):
            if type(child) is nn.Linear and child.weight.dtype == torch.float32:
                setattr(part, name, PackedLinear(child.weight, child.bias))


@cache
def packing_works() -> bool:
    """Whether `PackedLinear` runs here: its operators are not PyTorch's public ones, and not in every build."""
    weight, x = torch.linspace(-1, 1, 48 * 32).view(48, 32), torch.linspace(-3, 2, 3 * 32).view(3, 32)
    try:
        return torch.allclose(PackedLinear(weight, weight[:, 0])(x), F.linear(x, weight, weight[:, 0]), atol=1e-4)
    except (RuntimeError, AttributeError, TypeError, NotImplementedError) as error:
        raise_if_interrupted(error)
        return False
