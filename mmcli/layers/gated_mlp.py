"""The gated feed-forward of decoders (Shazeer, arXiv:2002.05202)."""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcli.layers import kernels
from mmcli.layers.encoder_decoder import by_frames
from mmcli.layers.fusing import Fusable
from mmcli.layers.int8_step import StepInt8Linear
from mmcli.layers.linear import joined

PIECE_IN_INT8 = 512  # tokens at a time, of whose numbers most are written over: larger products gain more than caches

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
}


class GatedMLP(Fusable):
    """down(activation(gate(x)) · up(x)), without biases: [..., D] → [..., D]."""

    def __init__(self, width: int, inner: int, activation: str):
        """`activation` is one of `ACTIVATIONS`."""
        super().__init__()
        self.activation = activation
        self.gate = nn.Linear(width, inner, bias=False)
        self.up = nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)
        self.gate_up: nn.Module | None = None

    def fuse(self) -> None:
        """Gate and up come from one product where that pays."""
        self.gate_up = joined(self.gate, self.up)
        if self.gate_up is not None:
            del self.gate, self.up

    def forward(self, x: Tensor) -> Tensor:
        if self.gate_up is not None:
            return self.down(gated(self.gate_up(x), self.activation))
        if isinstance(self.gate, StepInt8Linear) and isinstance(self.up, StepInt8Linear):
            return by_frames(self._in_int8, x, most=PIECE_IN_INT8)
        return self.down(ACTIVATIONS[self.activation](self.gate(x)) * self.up(x))

    def _in_int8(self, x: Tensor) -> Tensor:
        """The same where gate and up share the rounding of x; no numbers are written that could be written over."""
        gate, up, down = self.gate, self.up, self.down
        assert isinstance(gate, StepInt8Linear) and isinstance(up, StepInt8Linear) and isinstance(down, StepInt8Linear)
        rows, largest = gate.operand(x)
        y = gate.product(rows).mul_(largest)
        y = gelu_tanh_(y) if self.activation == "gelu" else F.silu(y, inplace=True)
        rows, own = down.operand(y.mul_(up.product(rows)).view(*x.shape[:-1], -1), overwrite=True)
        return down.product(rows).mul_(own).mul_(largest).to(x.dtype).view(*x.shape[:-1], -1)


def gelu_tanh_(x: Tensor) -> Tensor:
    """`F.gelu(x, approximate="tanh")` written over x: a sigmoid takes a CPU a third of the time of a tanh."""
    slope = 2 * (2 / math.pi) ** 0.5  # tanh(z) = 2 · sigmoid(2z) − 1
    y = torch.addcmul(x.new_tensor(slope), x, x, value=0.044715 * slope)
    return x.mul_(y.mul_(x).sigmoid_())


def gated(gate_up: Tensor, activation: str) -> Tensor:
    """activation(gate) · up of a product that holds both side by side: [..., 2 · inner] → [..., inner]."""
    if kernels.in_one_pass(gate_up):
        from mmcli.layers.kernels import gated as kernel

        return kernel.gated(gate_up.view(-1, gate_up.shape[-1]), activation).view(*gate_up.shape[:-1], -1)
    gate, up = gate_up.chunk(2, dim=-1)
    return ACTIVATIONS[activation](gate) * up
