"""The SigLIP vision tower (Zhai et al., arXiv:2303.15343): a ViT with learned positions and no class token."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class SiglipConfig:
    """Sizes of the tower; pictures are squares of `image_size` pixels."""

    width: int
    depth: int
    mlp_width: int
    heads: int
    image_size: int
    patch_size: int
    norm_epsilon: float = 1e-6

    @property
    def patches(self) -> int:
        """P: the patches of one picture."""
        return (self.image_size // self.patch_size) ** 2


class Attention(nn.Module):
    """Self-attention without a mask: [B, P, D] → [B, P, D]."""

    def __init__(self, config: SiglipConfig):
        super().__init__()
        self.heads = config.heads
        self.q = nn.Linear(config.width, config.width)
        self.k = nn.Linear(config.width, config.width)
        self.v = nn.Linear(config.width, config.width)
        self.out = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in (self.q(x), self.k(x), self.v(x)))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Feed-forward with the tanh form of GELU: [B, P, D] → [B, P, D]."""

    def __init__(self, config: SiglipConfig):
        super().__init__()
        self.up = nn.Linear(config.width, config.mlp_width)
        self.down = nn.Linear(config.mlp_width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x), approximate="tanh"))


class Layer(nn.Module):
    """One encoder layer, normalised before each half."""

    def __init__(self, config: SiglipConfig):
        super().__init__()
        self.norm_attention = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.attention = Attention(config)
        self.norm_mlp = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.mlp = MLP(config)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm_attention(x))
        return x + self.mlp(self.norm_mlp(x))


class SiglipTower(nn.Module):
    """Pictures [B, 3, side, side] in [-1, 1] → one vector a patch [B, P, D], row by row, after the final norm."""

    def __init__(self, config: SiglipConfig):
        super().__init__()
        self.patch = nn.Conv2d(3, config.width, config.patch_size, stride=config.patch_size)
        self.position = nn.Parameter(torch.zeros(config.patches, config.width))
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=config.norm_epsilon)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.patch(pixels).flatten(2).transpose(1, 2) + self.position
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)
