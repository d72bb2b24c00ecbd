"""Low-rank adaptation (LoRA; Hu et al., arXiv:2106.09685): a frozen linear layer, and a product of two thin matrices
beside it that learns.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcli.layers.weight_only import WeightOnlyLinear


@dataclass(frozen=True)
class LoraConfig:
    """How layers are adapted."""

    rank: int = 16
    alpha: float = 32.0
    stabilised: bool = False  # rank-stabilised (Kalajdzievski, arXiv:2312.03732): the scale falls with √rank
    dropout: float = 0.0  # of what the thin matrices read, in training

    @property
    def scale(self) -> float:
        """What the product of the two matrices is multiplied by."""
        return self.alpha / (math.sqrt(self.rank) if self.stabilised else self.rank)


class LoraLinear(nn.Module):
    """base(x) + scale · B A x: [..., in] → [..., out], with A [rank, in] and B [out, rank].

    The weights of `base` may be in integers (QLoRA, arXiv:2305.14314). A and B compute in the type of what they read.
    """

    def __init__(self, base: nn.Module, a: Tensor, b: Tensor, scale: float, dropout: float = 0.0):
        super().__init__()
        self.base, self.scale, self.dropout = base.requires_grad_(False), scale, dropout
        self.a, self.b = nn.Parameter(a), nn.Parameter(b)

    @classmethod
    def begun(cls, base: nn.Linear | WeightOnlyLinear, config: LoraConfig) -> "LoraLinear":
        """A layer as training begins with it: A is random and B zero, so that nothing changes at first.

        Both are float32 whatever the type of the base, and the numbers of a seed are the same on every device.
        """
        a = torch.empty(config.rank, base.in_features)
        nn.init.kaiming_uniform_(a, a=math.sqrt(5))
        device = next(chain(base.parameters(), base.buffers())).device
        b = torch.zeros(base.out_features, config.rank, device=device)
        return cls(base, a.to(device), b, config.scale, config.dropout)

    @property
    def weight(self) -> Tensor:
        """That of the base: what asks a layer for its type and device asks this."""
        return self.base.get_parameter("weight")

    def forward(self, x: Tensor) -> Tensor:
        thin = F.linear(F.dropout(x, self.dropout, self.training), self.a.to(x.dtype))
        return self.base(x).add(F.linear(thin, self.b.to(x.dtype)), alpha=self.scale)


def adapt(module: nn.Module, config: LoraConfig, below: Iterable[str], ends: Iterable[str]) -> dict[str, LoraLinear]:
    """Put `LoraLinear` in the place of every linear layer below the parts `below` whose name ends with one of `ends`.

    Returns the new layers by the names of the old ones. Weights in integers stay in them.
    """
    starts, wanted = tuple(below), tuple(f".{end}" for end in ends)
    names = [
        name
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear | WeightOnlyLinear) and name.startswith(starts) and f".{name}".endswith(wanted)
    ]
    found = {}
    for name in names:
        owner, _, own = name.rpartition(".")
        part = module.get_submodule(name)
        assert isinstance(part, nn.Linear | WeightOnlyLinear)
        found[name] = LoraLinear.begun(part, config)
        setattr(module.get_submodule(owner), own, found[name])
    return found


def adapted(module: nn.Module) -> dict[str, LoraLinear]:
    """The adapted layers of a module by their names."""
    return {name: part for name, part in module.named_modules() if isinstance(part, LoraLinear)}
