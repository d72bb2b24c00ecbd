"""The SigLIP vision tower (Zhai et al., arXiv:2303.15343): a ViT with learned positions and no class token."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcli.layers import kernels
from mmcli.layers.fusing import Fusable
from mmcli.layers.linear import on_gpu, stack


@dataclass(frozen=True)
class SiglipConfig:
    """Sizes of the tower; its positions are those of a square of `image_size` pixels."""

    width: int
    depth: int
    mlp_width: int
    heads: int
    image_size: int
    patch_size: int
    norm_epsilon: float = 1e-6
    exact_gelu: bool = False  # timm's towers: GELU itself instead of its tanh form
    fused_qkv: bool = False  # timm's towers: queries, keys and values come from one product

    @property
    def patches(self) -> int:
        """P: the patches of one image."""
        return (self.image_size // self.patch_size) ** 2


class Attention(Fusable):
    """Self-attention without a mask: [B, P, D] → [B, P, D]."""

    def __init__(self, config: SiglipConfig):
        super().__init__()
        self.heads = config.heads
        if config.fused_qkv:
            self.qkv: nn.Module = nn.Linear(config.width, 3 * config.width)
        else:
            self.q = nn.Linear(config.width, config.width)
            self.k = nn.Linear(config.width, config.width)
            self.v = nn.Linear(config.width, config.width)
        self.fused = config.fused_qkv
        self.out = nn.Linear(config.width, config.width)

    def fuse(self) -> None:
        """On a GPU queries, keys and values come from one product (elsewhere weights stay mapped from their file)."""
        if not self.fused and on_gpu(self.out):
            self.qkv, self.fused = stack(self.q, self.k, self.v), True
            del self.q, self.k, self.v

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(x).chunk(3, dim=-1) if self.fused else (self.q(x), self.k(x), self.v(x))
        q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in parts)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Feed-forward: [B, P, D] → [B, P, D]."""

    def __init__(self, config: SiglipConfig):
        super().__init__()
        self.form = "none" if config.exact_gelu else "tanh"
        self.up = nn.Linear(config.width, config.mlp_width)
        self.down = nn.Linear(config.mlp_width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        if self.form == "tanh" and type(self.up) is nn.Linear and x.is_cuda and kernels.in_one_pass(x):
            # As the library's product ends, in one pass.
            up = torch._addmm_activation(self.up.bias, x.flatten(0, -2), self.up.weight.T, use_gelu=True)
            return self.down(up.view(*x.shape[:-1], -1))
        return self.down(F.gelu(self.up(x), approximate=self.form))


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


def fractional_positions(rows: int, columns: int, side: int) -> Tensor:
    """Which of side × side learned positions each patch of a grid has, by where it lies in its image: [rows · columns].

    Row i of n has the position of the last of `side` rows that begins no further down: with half as many rows, of every
    other. Computed in float32 as the models that were trained with it do (NaViT, arXiv:2307.06304; transformers
    `Idefics3VisionEmbeddings`), since rounding decides where rows begin together: some grids skip a position by it.
    """
    borders = torch.arange(1 / side, 1.0, 1 / side)

    def places(count: int) -> Tensor:
        shares = torch.arange(count, dtype=torch.float32) * (1.0 / torch.tensor(count))
        return torch.bucketize(shares.clamp(max=1 - 1e-6), borders, right=True)

    return (places(rows)[:, None] * side + places(columns)).flatten()


@cache
def _positions(rows: int, columns: int, side: int, device: torch.device) -> Tensor:
    """`fractional_positions`, there already where the reading of a prompt is recorded."""
    with torch.inference_mode(False):  # learning may go through them, too
        return fractional_positions(rows, columns, side).to(device)


class SiglipTower(nn.Module):
    """Images [B, 3, height, width] in [-1, 1] → one vector a patch [B, P, D], row by row, after the final norm."""

    def __init__(self, config: SiglipConfig):
        super().__init__()
        self.patch_size, self.side = config.patch_size, config.image_size // config.patch_size
        self.patch = nn.Conv2d(3, config.width, config.patch_size, stride=config.patch_size)
        self.position = nn.Parameter(torch.zeros(config.patches, config.width))
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=config.norm_epsilon)

    def forward(self, pixels: Tensor) -> Tensor:
        """Images of the tower's own size."""
        return self.read(pixels, self.position)

    def read_any(self, pixels: Tensor) -> Tensor:
        """Images of any height and width, in whole patches: each has the position of where it lies in its image."""
        rows, columns = (side // self.patch_size for side in pixels.shape[-2:])
        return self.read(pixels, self.position[_positions(rows, columns, self.side, self.position.device)])

    def read(self, pixels: Tensor, places: Tensor) -> Tensor:
        """The same, where `places` [P, D] are added to the patches as their positions."""
        x = self._patches(pixels) + places
        if kernels.in_one_pass(x):
            return self._in_fewer_passes(x)
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)

    def _patches(self, pixels: Tensor) -> Tensor:
        """The vectors of patches [B, P, D], one behind the other in memory: norms would copy it otherwise, layer by
        layer."""
        side, (height, width) = self.patch_size, pixels.shape[-2:]
        if not kernels.in_one_pass(pixels) or height % side or width % side:
            return self.patch(pixels).flatten(2).transpose(1, 2).contiguous()
        # As a product: a GPU's library takes ten times as long for it as a convolution.
        cut = pixels.unflatten(3, (-1, side)).unflatten(2, (-1, side)).permute(0, 2, 4, 1, 3, 5)
        return F.linear(cut.flatten(3).flatten(1, 2), self.patch.weight.flatten(1), self.patch.bias)

    def _in_fewer_passes(self, x: Tensor) -> Tensor:
        """All layers of x, where additions and norms are one kernel."""
        from mmcli.layers.kernels.residual_layer_norm import residual_layer_norm

        def added(x: Tensor, y: Tensor, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
            return residual_layer_norm(x, y.flatten(0, 1), norm.weight, norm.bias, norm.eps)

        layers: Any = self.layers
        shape, after = x.shape, [layer.norm_attention for layer in layers[1:]] + [self.norm]
        normed, x = layers[0].norm_attention(x), x.flatten(0, 1)
        for layer, following in zip(layers, after, strict=True):
            x, normed = added(x, layer.attention(normed.view(shape)), layer.norm_mlp)
            x, normed = added(x, layer.mlp(normed.view(shape)), following)
        return normed.view(shape)
