"""Convolutions with an activation behind them, and the form in which a CPU computes both in one pass."""

import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcli.errors import raise_if_interrupted

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
}
# What oneDNN calls them, with their numbers.
FUSED: dict[str | None, tuple[str, list[float]]] = {
    None: ("none", []),
    "relu6": ("hardtanh", [0.0, 6.0]),
    "relu": ("relu", []),
    "hardswish": ("hardswish", []),
    "hardsigmoid": ("hardsigmoid", []),
}

_PACKING = threading.Lock()


class ActivatedConv(nn.Conv2d):
    """A convolution with a bias and, unless told otherwise, an activation: [B, C, h, w] → [B, C', h', w'].

    Each side is padded by half of the kernel, or by `margin` (left, right, top, bottom).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        activation: str | None = None,
        margin: tuple[int, int, int, int] | None = None,
    ):
        super().__init__(inputs, outputs, kernel, stride, 0 if margin else kernel // 2, groups=groups)
        self.activation, self.margin = activation, margin

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x if self.margin is None else F.pad(x, self.margin))
        return x if self.activation is None else ACTIVATIONS[self.activation](x)


class PackedConv(nn.Module):
    """What an `ActivatedConv` computes, in one pass of oneDNN from weights in its order, in `dtype`.

    Maps have their channels innermost. The order depends on their size, so weights are put in it for the first map;
    others may come, which take longer. `packed_convolutions_work` tells whether this PyTorch has it.
    """

    def __init__(self, conv: ActivatedConv, dtype: torch.dtype):
        super().__init__()
        assert conv.bias is not None
        self.dtype, self.margin = dtype, conv.margin
        self.sizes = list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups
        self.fused: tuple[Any, ...] = (*FUSED[conv.activation], "")
        self.bias = conv.bias.detach().to(dtype)
        self._weight: Tensor | None = conv.weight.detach().to(dtype)
        self._packed: Tensor | None = None  # opaque: it can be neither moved nor saved

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.dtype)
        if self.margin is not None:
            x = F.pad(x, self.margin)
        packed = self._pack(x) if self._packed is None else self._packed
        # `default` spares PyTorch looking for the overload, which takes it as long as a small operation.
        convolve = torch.ops.mkldnn._convolution_pointwise.default
        y: Tensor = convolve(x, packed, self.bias, *self.sizes, *self.fused)
        return y

    def _pack(self, x: Tensor) -> Tensor:
        with _PACKING:  # several threads may bring a first map
            if self._weight is not None:
                self._packed = torch.ops.mkldnn._reorder_convolution_weight(self._weight, *self.sizes, list(x.shape))
                self._weight = None
        assert self._packed is not None
        return self._packed


def pack_convolutions(module: nn.Module, dtype: torch.dtype) -> None:
    """Replace every `ActivatedConv` below `module`, which is on a CPU, by a packed one where this PyTorch can."""
    if not packed_convolutions_work(dtype):
        return
    for part in list(module.modules()):
        for name, child in list(part.named_children()):
            if isinstance(child, ActivatedConv):
                setattr(part, name, PackedConv(child, dtype))


@cache
def packed_convolutions_work(dtype: torch.dtype) -> bool:
    """Whether `PackedConv` runs here in `dtype`: its operators are not PyTorch's public ones, nor in every build."""
    conv = ActivatedConv(16, 32, 3, 2, activation="relu6", margin=(0, 1, 0, 1))
    conv.requires_grad_(False)
    conv.weight.copy_(torch.linspace(-1, 1, conv.weight.numel()).view_as(conv.weight))
    assert conv.bias is not None
    conv.bias.copy_(torch.linspace(-2, 2, 32))
    x = torch.linspace(-1, 1, 16 * 64).view(1, 16, 8, 8).to(memory_format=torch.channels_last)
    try:
        y = PackedConv(conv, dtype)(x)
        return y.dtype == dtype and torch.allclose(y.float(), conv(x), rtol=0.05, atol=0.05)
    except (RuntimeError, AttributeError, TypeError, NotImplementedError) as error:
        raise_if_interrupted(error)
        return False
