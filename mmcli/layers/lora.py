"""Low-rank adaptation (LoRA; Hu et al., arXiv:2106.09685): a frozen linear layer, and a product of two thin matrices
beside it that learns.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
    """base(x) + scale · B A x: [..., in] → [..., out].

    A [rank, in] begins at random and B [out, rank] at zero, so that nothing changes at first. Both are float32 whatever
    the type of the base, and compute in the type of what they read.
    """

    def __init__(self, base: nn.Linear, config: LoraConfig):
        super().__init__()
        self.base, self.scale, self.dropout = base.requires_grad_(False), config.scale, config.dropout
        device = base.weight.device
        self.a = nn.Parameter(torch.empty(config.rank, base.in_features, device=device))
        self.b = nn.Parameter(torch.zeros(base.out_features, config.rank, device=device))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    @property
    def weight(self) -> Tensor:
        """That of the base: what asks a layer for its type and device asks this."""
        return self.base.weight

    def forward(self, x: Tensor) -> Tensor:
        thin = F.dropout(x, self.dropout, self.training)
        thin = F.linear(F.linear(thin, self.a.to(x.dtype)), self.b.to(x.dtype) * self.scale)
        return self.base(x) + thin


def adapt(module: nn.Module, config: LoraConfig, below: Iterable[str], ends: Iterable[str]) -> dict[str, LoraLinear]:
    """Put `LoraLinear` in the place of every linear layer below the parts `below` whose name ends with one of `ends`.

    Returns the new layers by the names of the old ones.
    """
    starts, wanted = tuple(below), tuple(f".{end}" for end in ends)
    names = [
        name
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear) and name.startswith(starts) and f".{name}".endswith(wanted)
    ]
    found = {}
    for name in names:
        owner, _, own = name.rpartition(".")
        part = module.get_submodule(name)
        assert isinstance(part, nn.Linear)
        found[name] = LoraLinear(part, config)
        setattr(module.get_submodule(owner), own, found[name])
    return found


def adapted(module: nn.Module) -> dict[str, LoraLinear]:
    """The adapted layers of a module by their names."""
    return {name: part for name, part in module.named_modules() if isinstance(part, LoraLinear)}
