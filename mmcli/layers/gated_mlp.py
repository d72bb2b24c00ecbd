"""The gated feed-forward of decoders (Shazeer, arXiv:2002.05202)."""

from collections.abc import Callable

from torch import Tensor, nn

from mmcli.layers.fusing import Fusable
from mmcli.layers.linear import on_gpu, stack


class GatedMLP(Fusable):
    """down(activation(gate(x)) · up(x)), without biases: [..., D] → [..., D]."""

    def __init__(self, width: int, inner: int, activation: Callable[[Tensor], Tensor]):
        super().__init__()
        self.activation = activation
        self.gate = nn.Linear(width, inner, bias=False)
        self.up = nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)
        self.gate_up: nn.Module | None = None

    def fuse(self) -> None:
        """On a GPU gate and up come from one product (elsewhere weights stay mapped from their file)."""
        if on_gpu(self.down):
            self.gate_up = stack(self.gate, self.up)
            del self.gate, self.up

    def forward(self, x: Tensor) -> Tensor:
        gate, up = (self.gate(x), self.up(x)) if self.gate_up is None else self.gate_up(x).chunk(2, dim=-1)
        return self.down(self.activation(gate) * up)
