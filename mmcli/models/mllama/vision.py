"""The tower of Llama 3.2 Vision: a ViT over all tiles of an image at once, in two stacks of layers.

Source: transformers `models/mllama/modeling_mllama.py`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcli.layers.encoder_decoder import MLP, join_heads, split_heads
from mmcli.layers.fusing import Fusable
from mmcli.layers.linear import on_gpu, stack
from mmcli.models.mllama.config import VisionConfig
from mmcli.models.mllama.tiles import arrangements


class Attention(Fusable):
    """Self-attention without biases: [I, L, D] → [I, L, D]. The first `real` vectors attend to all, the rest to those.

    So nothing needs a mask, which would keep it from the fastest kernels.
    """

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.heads = config.heads
        self.q, self.k, self.v, self.out = (nn.Linear(config.width, config.width, bias=False) for _ in range(4))
        self.qkv: nn.Module | None = None

    def fuse(self) -> None:
        """On a GPU queries, keys and values come from one product (elsewhere weights stay mapped from their file)."""
        if on_gpu(self.out):
            self.qkv = stack(self.q, self.k, self.v)
            del self.q, self.k, self.v

    def forward(self, x: Tensor, real: int) -> Tensor:
        parts = (self.q(x), self.k(x), self.v(x)) if self.qkv is None else self.qkv(x).chunk(3, dim=-1)
        q, k, v = (split_heads(part, self.heads) for part in parts)
        y = join_heads(F.scaled_dot_product_attention(q[:, :, :real], k, v))
        if real < x.shape[1]:
            rest = F.scaled_dot_product_attention(q[:, :, real:], k[:, :, :real], v[:, :, :real])
            y = torch.cat((y, join_heads(rest)), dim=1)
        return self.out(y)


class Layer(nn.Module):
    """One encoder layer, normalised before each half; in gated layers each half is multiplied by tanh of its gate."""

    def __init__(self, config: VisionConfig, gated: bool):
        super().__init__()
        self.norm_attention = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.attention = Attention(config)
        self.norm_mlp = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.mlp = MLP(config.width, config.mlp_width)
        self.gate_attention = nn.Parameter(torch.zeros(1)) if gated else None
        self.gate_mlp = nn.Parameter(torch.zeros(1)) if gated else None

    def forward(self, x: Tensor, real: int) -> Tensor:
        x = x + _gated(self.attention(self.norm_attention(x), real), self.gate_attention)
        return x + _gated(self.mlp(self.norm_mlp(x)), self.gate_mlp)


def _gated(x: Tensor, gate: Tensor | None) -> Tensor:
    return x if gate is None else gate.tanh() * x


class TileEmbedding(nn.Module):
    """Adds to all vectors of a tile [I, M, …, D] what its place in its arrangement means."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.most = config.most_tiles
        self.embedding = nn.Embedding(len(arrangements(config.most_tiles)) + 1, config.most_tiles * config.width)
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, arrangement: Tensor) -> Tensor:
        return x + self.embedding(arrangement).unflatten(-1, (self.most, 1, -1)) * self.gate.tanh()


class PositionEmbedding(nn.Module):
    """Adds positions [I, M, P, D]: those of a patch in its tile, and by a gate those of it in the arrangement."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.shape = config.most_tiles, config.patches, config.width
        self.gate = nn.Parameter(torch.zeros(1))
        self.embedding = nn.Parameter(torch.zeros(config.patches, config.width))
        self.tiles = nn.Embedding(
            len(arrangements(config.most_tiles)) + 1, config.most_tiles * config.patches * config.width
        )

    def forward(self, x: Tensor, arrangement: Tensor) -> Tensor:
        share = self.gate.tanh()
        return x + (1 - share) * self.embedding + share * self.tiles(arrangement).view(-1, *self.shape)


class Tower(nn.Module):
    """Tiles [I, M, 3, side, side] → vectors [I, M, P, D · (1 + kept)].

    All M tiles are read, whether an image has them or not: in training what is left of them (zeros) could be attended
    to, only not by each other.
    """

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.config = config
        self.patch = nn.Conv2d(3, config.width, config.patch_size, config.patch_size, bias=False)
        self.whole = nn.Parameter(torch.zeros(config.width))  # in front of every tile's patches
        self.tiles_before, self.tiles_behind = TileEmbedding(config), TileEmbedding(config)
        self.position = PositionEmbedding(config)
        self.norm_before, self.norm_behind = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        self.layers = nn.ModuleList(Layer(config, gated=False) for _ in range(config.depth))
        self.global_layers = nn.ModuleList(Layer(config, gated=True) for _ in range(config.global_depth))

    def forward(self, tiles: Tensor, arrangement: Tensor, order: Tensor, count: int) -> Tensor:
        """`arrangement` [I] is each image's number from 1 on, `count` says how many of its tiles each of them has.

        `order` are the places of all vectors of such an image, see `Tower.order`.
        """
        images, most, patches = *tiles.shape[:2], self.config.patches
        x = self.patch(tiles.flatten(0, 1)).flatten(2).mT.unflatten(0, (images, most))
        x = self.tiles_before(x, arrangement)
        x = torch.cat((self.whole.expand(images, most, 1, -1), x), dim=2)
        x = self.norm_before(self.position(x, arrangement))
        x = F.pad(x, (0, 0, 0, self.config.filled_patches - patches))
        back, real, kept = order.argsort(), count * patches, {}
        x = x.flatten(1, 2)[:, order]
        for number, layer in enumerate(self.layers):
            x = layer(x, real)
            if number in self.config.kept:
                kept[number] = x
        x = self.norm_behind(x)[:, back].unflatten(1, (most, -1))
        x = self.tiles_behind(x, arrangement).flatten(1, 2)[:, order]
        for layer in self.global_layers:
            x = layer(x, real)
        # Of what was kept, all that is of one number of a vector stands together.
        beside = torch.stack([kept[number] for number in self.config.kept], dim=-1).flatten(2) if kept else x[..., :0]
        return torch.cat((x, beside), dim=-1)[:, back].unflatten(1, (most, -1))[:, :, :patches]

    def order(self, count: int) -> Tensor:
        """Places of all vectors of an image with so many tiles, [L]: those that stand for something come first."""
        stands = torch.zeros(self.config.most_tiles, self.config.filled_patches, dtype=torch.bool)
        stands[:count, : self.config.patches] = True
        return (~stands).flatten().byte().argsort(stable=True)
