"""EVA-02-E (Sun et al., arXiv:2303.15389), the image tower of OmniLMM: a ViT that normalises behind each half.

Read from timm `models/eva.py` (`eva02_enormous_patch14_clip_224`, `EvaBlockPostNorm`): learned positions and no rotary
ones, biases for queries and values but none for keys, the exact GELU, a norm at the end.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class EvaConfig:
    """Sizes of the tower; images are squares of `image_size` pixels."""

    width: int
    depth: int  # blocks that are computed
    mlp_width: int
    heads: int
    patch_size: int
    image_size: int
    trained_size: int  # pixels; the table of positions is that of images of this size
    norm_epsilon: float = 1e-6

    @property
    def grid(self) -> int:
        """Patches in a row of an image."""
        return self.image_size // self.patch_size

    @property
    def trained_grid(self) -> int:
        """Positions in a row of the table."""
        return self.trained_size // self.patch_size


class Attention(nn.Module):
    """Self-attention without a mask: [B, P, D] → [B, P, D]."""

    def __init__(self, config: EvaConfig):
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(config.width))
        self.v_bias = nn.Parameter(torch.zeros(config.width))
        self.out = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        bias = torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))
        q, k, v = F.linear(x, self.qkv.weight, bias).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """One block: what each half adds is normalised, not what it reads."""

    def __init__(self, config: EvaConfig):
        super().__init__()
        self.attention = Attention(config)
        self.norm_attention = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.up = nn.Linear(config.width, config.mlp_width)
        self.down = nn.Linear(config.mlp_width, config.width)
        self.norm_mlp = nn.LayerNorm(config.width, eps=config.norm_epsilon)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.norm_attention(self.attention(x))
        return x + self.norm_mlp(self.down(F.gelu(self.up(x))))


class EvaTower(nn.Module):
    """Images [B, 3, side, side] → one vector a patch [B, P, D], row by row, after the final norm.

    The class token takes part, and is left out of what comes out.
    """

    def __init__(self, config: EvaConfig):
        super().__init__()
        self.config = config
        self.patch = nn.Conv2d(3, config.width, config.patch_size, stride=config.patch_size)
        self.class_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.position = nn.Parameter(torch.zeros(1, 1 + config.trained_grid**2, config.width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=config.norm_epsilon)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.patch(pixels).flatten(2).transpose(1, 2)
        x = torch.cat((self.class_token.expand(len(x), -1, -1), x), dim=1) + self._positions()
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 1:]

    def _positions(self) -> Tensor:
        """The class token's position and those of the patches, interpolated where images are larger: [1, 1 + P, D].

        Cubic splines with antialiasing are other ones than without, also where a table grows (timm
        `layers/pos_embed.py`).
        """
        grid, trained = self.config.grid, self.config.trained_grid
        if grid == trained:
            return self.position
        own, table = self.position[:, :1], self.position[:, 1:]
        field = table.float().unflatten(1, (trained, trained)).permute(0, 3, 1, 2)
        field = F.interpolate(field, size=(grid, grid), mode="bicubic", antialias=True)
        return torch.cat((own, field.flatten(2).transpose(1, 2).to(table.dtype)), dim=1)
