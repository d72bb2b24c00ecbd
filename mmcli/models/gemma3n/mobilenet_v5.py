"""MobileNetV5-300M, Gemma 3n's vision tower, with its fusion of scales into one grid.

Built from the blocks of MobileNetV4 (Qin et al., arXiv:2404.10518); the sizes are those of `mobilenetv5_300m_enc` in
timm's `models/mobilenetv5.py`. Its norms keep no running statistics: each divides a pixel's channels by their root
mean square.

Maps are [B, rows, columns, C] in here, channels last: so a pointwise convolution is one matrix product, norms and
attention need no transposing, and convolutions run faster on processors (the depthwise ones several times) and on GPUs.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcli.layers import kernels

EPSILON = 1e-6
STEM = 64  # channels
STRIDE = 32  # of the coarsest maps: images' sides are multiples of it
GRID = 16  # side of the grid that leaves the tower, whatever the image's size
WIDTH = 2048  # channels of that grid
FUSION_EXPANSION = 2  # of the fusion, whose input is the maps of the last two stages


@dataclass(frozen=True)
class Fused:
    """Sizes of a residual block that widens by a full convolution of 3 × 3."""

    expansion: int
    stride: int = 1


@dataclass(frozen=True)
class Inverted:
    """Sizes of a residual block that widens pixel by pixel; the kernels are those of depthwise convolutions."""

    expansion: int
    start: int = 0  # kernel before widening; 0: none
    middle: int = 0  # kernel between widening and narrowing, with the stride; 0: none
    stride: int = 1


@dataclass(frozen=True)
class Attending:
    """Sizes of an attention block; keys and values come from a map reduced by `key_stride`."""

    heads: int
    head_width: int
    key_stride: int = 1


Block = Fused | Inverted | Attending

_WITH_64 = (Attending(12, 64, 2), Inverted(2))
_WITH_96 = (Attending(16, 96), Inverted(2))

# (channels, blocks) of each stage, whose first block halves the sides.
STAGES: tuple[tuple[int, tuple[Block, ...]], ...] = (
    (128, (Fused(4, stride=2), Fused(4), Fused(4))),
    (256, (Inverted(6, 3, 5, stride=2), Inverted(4, 5), Inverted(4, 3), Inverted(4, 5), Inverted(4, 3))),
    (640, (Inverted(6, 5, 5, stride=2), *[Inverted(4, 5)] * 7, Inverted(1), *_WITH_64 * 14)),
    (1280, (Inverted(6, 5, 5, stride=2), *_WITH_96 * 19)),
)

# The tensors' names in checkpoints, below the tower's prefix → ours. `{}` is a number.
TENSORS = {
    "conv_stem.conv.weight": "stem.conv.weight",
    "conv_stem.conv.bias": "stem.conv.bias",
    "conv_stem.bn.weight": "stem.norm.weight",
    "blocks.{}.{}.conv_exp.weight": "stages.{}.{}.expand.conv.weight",
    "blocks.{}.{}.bn1.weight": "stages.{}.{}.expand.norm.weight",
    "blocks.{}.{}.conv_pwl.weight": "stages.{}.{}.project.conv.weight",
    "blocks.{}.{}.bn2.weight": "stages.{}.{}.project.norm.weight",
    "blocks.{}.{}.dw_start.conv.weight": "stages.{}.{}.start.conv.weight",
    "blocks.{}.{}.dw_start.bn.weight": "stages.{}.{}.start.norm.weight",
    "blocks.{}.{}.pw_exp.conv.weight": "stages.{}.{}.expand.conv.weight",
    "blocks.{}.{}.pw_exp.bn.weight": "stages.{}.{}.expand.norm.weight",
    "blocks.{}.{}.dw_mid.conv.weight": "stages.{}.{}.middle.conv.weight",
    "blocks.{}.{}.dw_mid.bn.weight": "stages.{}.{}.middle.norm.weight",
    "blocks.{}.{}.pw_proj.conv.weight": "stages.{}.{}.project.conv.weight",
    "blocks.{}.{}.pw_proj.bn.weight": "stages.{}.{}.project.norm.weight",
    "blocks.{}.{}.norm.weight": "stages.{}.{}.norm.weight",
    "blocks.{}.{}.attn.query.proj.weight": "stages.{}.{}.q.weight",
    "blocks.{}.{}.attn.key.down_conv.weight": "stages.{}.{}.k_reduce.conv.weight",
    "blocks.{}.{}.attn.key.norm.weight": "stages.{}.{}.k_reduce.norm.weight",
    "blocks.{}.{}.attn.key.proj.weight": "stages.{}.{}.k.weight",
    "blocks.{}.{}.attn.value.down_conv.weight": "stages.{}.{}.v_reduce.conv.weight",
    "blocks.{}.{}.attn.value.norm.weight": "stages.{}.{}.v_reduce.norm.weight",
    "blocks.{}.{}.attn.value.proj.weight": "stages.{}.{}.v.weight",
    "blocks.{}.{}.attn.output.proj.weight": "stages.{}.{}.out.weight",
    "blocks.{}.{}.layer_scale.gamma": "stages.{}.{}.scale",
    "msfa.ffn.pw_exp.conv.weight": "fusion.expand.conv.weight",
    "msfa.ffn.pw_exp.bn.weight": "fusion.expand.norm.weight",
    "msfa.ffn.pw_proj.conv.weight": "fusion.project.conv.weight",
    "msfa.ffn.pw_proj.bn.weight": "fusion.project.norm.weight",
    "msfa.norm.weight": "fusion.norm.weight",
}


class ChannelNorm(nn.Module):
    """Root-mean-square norm over channels: [..., C] → [..., C], a new tensor."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        if kernels.in_one_pass(x):
            from mmcli.models.gemma3n.kernels.channel_norm import channel_norm

            return channel_norm(x, self.weight, EPSILON, False)
        width = x.shape[-1]
        if x.device.type != "cpu" or x.dtype != torch.float32:
            return F.rms_norm(x, (width,), self.weight, EPSILON)
        # PyTorch has no kernel for it here and makes a copy a step: a tenth of the whole tower's time.
        square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square()
        return (x * torch.rsqrt(square / width + EPSILON)).mul_(self.weight)


class Conv(nn.Conv2d):
    """Convolution [B, rows, columns, inputs] → [B, rows / stride, columns / stride, outputs].

    Padding is TensorFlow's "same": where it cannot be split evenly, the odd pixel goes right and below.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, bias: bool = False):
        super().__init__(inputs, outputs, kernel, stride, kernel // 2 if stride == 1 else 0, groups=groups, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] == 2:
            total = self.kernel_size[0] - 2  # of even sides, as all are here
            before, behind = total // 2, total - total // 2
            x = F.pad(x, (0, 0, before, behind, before, behind))
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Pointwise(nn.Module):
    """A convolution of 1 × 1, as a matrix product: [..., inputs] → [..., outputs]."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.flatten(1))


class ConvNorm(nn.Module):
    """A convolution and its norm, with the tanh form of GELU behind it where `gelu` says so."""

    def __init__(self, conv: Conv | Pointwise, gelu: bool = False):
        super().__init__()
        self.conv = conv
        self.norm = ChannelNorm(conv.weight.shape[0])
        self.gelu = gelu

    def forward(self, x: Tensor, scale: Tensor | None = None, residual: Tensor | None = None) -> Tensor:
        """With a `scale` [C] what comes of it is multiplied by that, with a `residual` [..., C] added to that."""
        x = self.conv(x)
        if kernels.in_one_pass(x) and (residual is None or residual.is_contiguous()):
            from mmcli.models.gemma3n.kernels.channel_norm import channel_norm

            return channel_norm(x, self.norm.weight, EPSILON, self.gelu, scale, residual)
        x = self.norm(x)
        if self.gelu:
            x = torch.ops.aten.gelu_(x, approximate="tanh")
        if residual is None:
            return x if scale is None else x * scale
        return x.add_(residual) if scale is None else torch.addcmul(residual, x, scale)


class FusedResidual(nn.Module):
    """Widen and filter in one convolution, narrow; the input is added where the shape allows."""

    def __init__(self, inputs: int, outputs: int, sizes: Fused):
        super().__init__()
        inner = inputs * sizes.expansion
        self.expand = ConvNorm(Conv(inputs, inner, 3, sizes.stride), gelu=True)
        self.project = ConvNorm(Pointwise(inner, outputs))
        self.residual = sizes.stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.expand(x), residual=x if self.residual else None)


class InvertedResidual(nn.Module):
    """Filter, widen, filter, narrow and scale (both filters may be missing); the input is added where it fits."""

    def __init__(self, inputs: int, outputs: int, sizes: Inverted):
        super().__init__()
        inner = inputs * sizes.expansion
        self.start = self.middle = None
        if sizes.start:
            self.start = ConvNorm(Conv(inputs, inputs, sizes.start, groups=inputs))
        self.expand = ConvNorm(Pointwise(inputs, inner), gelu=True)
        if sizes.middle:
            self.middle = ConvNorm(Conv(inner, inner, sizes.middle, sizes.stride, groups=inner), gelu=True)
        self.project = ConvNorm(Pointwise(inner, outputs))
        self.scale = nn.Parameter(torch.ones(outputs))
        self.residual = sizes.stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.expand(x if self.start is None else self.start(x))
        y = y if self.middle is None else self.middle(y)
        return self.project(y, self.scale, x if self.residual else None)


class AttentionResidual(nn.Module):
    """Attention over all pixels, added to the input; heads share one key and one value head (arXiv:1911.02150)."""

    def __init__(self, width: int, sizes: Attending):
        super().__init__()
        self.head_width = sizes.head_width
        self.norm = ChannelNorm(width)
        self.q = Pointwise(width, sizes.heads * sizes.head_width)
        self.k = Pointwise(width, sizes.head_width)
        self.v = Pointwise(width, sizes.head_width)
        self.k_reduce = self.v_reduce = None
        if sizes.key_stride == 2:
            self.k_reduce = ConvNorm(Conv(width, width, 3, 2, groups=width))
            self.v_reduce = ConvNorm(Conv(width, width, 3, 2, groups=width))
        self.out = Pointwise(sizes.heads * sizes.head_width, width)
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        k = self.k(y if self.k_reduce is None else self.k_reduce(y))
        v = self.v(y if self.v_reduce is None else self.v_reduce(y))
        # All heads ask the same keys, so they are queries of one head, where they lie: [B, 1, pixels · N, H].
        q = self.q(y).reshape(len(x), 1, -1, self.head_width)
        seen = F.scaled_dot_product_attention(q, k.flatten(1, 2)[:, None], v.flatten(1, 2)[:, None])
        return torch.addcmul(x, self.out(seen.reshape(*x.shape[:3], -1)), self.scale)


class Fusion(nn.Module):
    """The maps of the last two stages [B, r, c, 640] and [B, r / 2, c / 2, 1280] → [B, GRID, GRID, WIDTH]."""

    def __init__(self, inputs: int):
        super().__init__()
        self.expand = ConvNorm(Pointwise(inputs, FUSION_EXPANSION * inputs), gelu=True)
        self.project = ConvNorm(Pointwise(FUSION_EXPANSION * inputs, WIDTH))
        self.norm = ChannelNorm(WIDTH)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        coarse = coarse.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
        x = self.project(self.expand(torch.cat((fine, coarse), dim=-1))).permute(0, 3, 1, 2)
        if x.shape[2] % GRID or x.shape[3] % GRID:
            x = F.interpolate(x, size=(GRID, GRID), mode="bilinear")
        else:
            x = F.adaptive_avg_pool2d(x, GRID)
        return self.norm(x.permute(0, 2, 3, 1))


class MobileNetV5(nn.Module):
    """Images [B, 3, rows, columns] in 0..1, sides multiples of STRIDE → the grid [B, WIDTH, GRID, GRID].

    Gemma 3n reads squares of 768 pixels. The grid lies in memory as [B, GRID, GRID, WIDTH] does, so that
    `.flatten(2).mT` copies nothing. Raises ValueError for other sides.
    """

    def __init__(self):
        super().__init__()
        self.stem = ConvNorm(Conv(3, STEM, 3, 2, bias=True), gelu=True)
        stages, inputs = [], STEM
        for channels, blocks in STAGES:
            stage = []
            for sizes in blocks:
                stage.append(_block(inputs, channels, sizes))
                inputs = channels
            stages.append(nn.Sequential(*stage))
        self.stages = nn.ModuleList(stages)
        self.fusion = Fusion(sum(channels for channels, _ in STAGES[-2:]))

    def forward(self, pixels: Tensor) -> Tensor:
        if pixels.shape[2] % STRIDE or pixels.shape[3] % STRIDE:
            raise ValueError(f"Pictures of {pixels.shape[2]} × {pixels.shape[3]} pixels: not multiples of {STRIDE}")
        x = self.stem(pixels.permute(0, 2, 3, 1).contiguous())
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return self.fusion(*maps[-2:]).permute(0, 3, 1, 2)


def _block(inputs: int, outputs: int, sizes: Block) -> nn.Module:
    match sizes:
        case Fused():
            return FusedResidual(inputs, outputs, sizes)
        case Inverted():
            return InvertedResidual(inputs, outputs, sizes)
        case Attending():
            return AttentionResidual(outputs, sizes)
