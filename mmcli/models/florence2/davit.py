"""DaViT (Ding et al., arXiv:2204.03645): attention among the places of a window, then among the channels of a group.

In front of each attention and each MLP stands a depthwise convolution, which gives every place its neighbours: there
are no other positions. Features are [B, H, W, D] throughout, so that a linear layer reads them as they lie.
"""

from collections.abc import Iterable
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from mmcli.layers.encoder_decoder import MLP
from mmcli.models.florence2.config import StageConfig, VisionConfig


class Merge(nn.Module):
    """Patches of the stage before (or of the image) become places: [B, H, W, C] → [B, H', W', D]."""

    def __init__(self, before: int, stage: StageConfig):
        super().__init__()
        self.norm_first = stage.norm_first
        self.conv = nn.Conv2d(before, stage.width, stage.patch, stage.stride, stage.padding)
        self.norm = nn.LayerNorm(before if stage.norm_first else stage.width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x) if self.norm_first else x
        x = self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x if self.norm_first else self.norm(x)


class Neighbours(nn.Module):
    """A place and what a depthwise convolution makes of the 3 × 3 around it."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, groups=width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class WindowAttention(nn.Module):
    """Attention among the places of square windows: [B, H, W, D] → [B, H, W, D].

    At the right and lower edge windows are filled up with zeros, which are attended to like any other place.
    """

    def __init__(self, width: int, heads: int, window: int, bias: bool):
        super().__init__()
        self.heads, self.window = heads, window
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        height, width, side = *x.shape[1:3], self.window
        x = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
        rows, columns = x.shape[1] // side, x.shape[2] // side
        x = x.unflatten(2, (columns, side)).unflatten(1, (rows, side)).transpose(2, 3)  # [B, rows, columns, side, side]
        q, k, v = self.qkv(x.flatten(3, 4).flatten(0, 2)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        y = self.out(y).unflatten(1, (side, side)).unflatten(0, (-1, rows, columns)).transpose(2, 3)
        return y.flatten(3, 4).flatten(1, 2)[:, :height, :width]


class ChannelAttention(nn.Module):
    """Attention among the channels of a group, each of which is seen over all places: [B, H, W, D] → [B, H, W, D]."""

    def __init__(self, width: int, groups: int, bias: bool):
        super().__init__()
        self.groups = groups
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, _ = x.shape
        places = height * width
        # [3, B, G, P, D/G]: queries and keys meet over the places, so none of them is turned round in memory
        q, k, v = self.qkv(x).view(batch, places, 3, self.groups, -1).permute(2, 0, 3, 1, 4)
        weights = ((q * places**-0.5).mT @ k).softmax(dim=-1)  # [B, G, D/G, D/G]
        y = v @ weights.mT
        return self.out(y.transpose(1, 2).reshape(batch, height, width, -1))


class Block(nn.Module):
    """One attention and one MLP, each behind its depthwise convolution."""

    def __init__(self, width: int, attention: nn.Module, inner: int):
        super().__init__()
        self.near_attention = Neighbours(width)
        self.norm_attention = nn.LayerNorm(width)
        self.attention = attention
        self.near_mlp = Neighbours(width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = MLP(width, inner)

    def forward(self, x: Tensor) -> Tensor:
        x = self.near_attention(x)
        x = x + self.attention(self.norm_attention(x))
        x = self.near_mlp(x)
        return x + self.mlp(self.norm_mlp(x))


class Stage(nn.Module):
    """Merged patches, then spatial and channel blocks by turns."""

    def __init__(self, before: int, stage: StageConfig, config: VisionConfig):
        super().__init__()
        width, inner = stage.width, int(stage.width * config.mlp_ratio)
        self.merge = Merge(before, stage)
        self.spatial = nn.ModuleList(
            Block(width, WindowAttention(width, stage.heads, config.window, config.qkv_bias), inner)
            for _ in range(stage.depth)
        )
        self.channel = nn.ModuleList(
            Block(width, ChannelAttention(width, stage.groups, config.qkv_bias), inner) for _ in range(stage.depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.merge(x)
        for spatial, channel in zip(self.spatial, self.channel, strict=True):
            x = channel(spatial(x))
        return x


class DaViT(nn.Module):
    """Pixels [B, 3, height, width] → places [B, H, W, D]."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        before = [3, *(stage.width for stage in config.stages)]
        self.stages = nn.ModuleList(
            Stage(width, stage, config) for width, stage in zip(before, config.stages, strict=False)
        )

    def forward(self, pixels: Tensor) -> Tensor:
        x = pixels.permute(0, 2, 3, 1).contiguous()
        for stage in cast(Iterable[Stage], self.stages):
            x = stage(x)
        return x
