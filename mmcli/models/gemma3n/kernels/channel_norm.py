"""RMSNorm over the channels of every pixel, with what follows it in the image tower, as one kernel."""

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from mmcli.layers.kernels.functions import gelu, rms_normed_rows
from mmcli.layers.kernels.launch import overlap

NUMBERS = 4096  # of a program


def channel_norm(
    x: Tensor, weight: Tensor, epsilon: float, act: bool, scale: Tensor | None = None, residual: Tensor | None = None
) -> Tensor:
    """What `plain` computes: [..., C], whose numbers follow each other → the same shape."""
    width, y = x.shape[-1], torch.empty_like(x)
    pixels, block = x.numel() // width, triton.next_power_of_2(width)
    each = max(1, NUMBERS // block)
    _channel_norm[(triton.cdiv(pixels, each),)](
        x, weight, scale, residual, y, pixels, width, epsilon,
        GELU=act, SCALED=scale is not None, ADDED=residual is not None, EACH=each, BLOCK=block,
        num_warps=min(16, max(4, each * block // 1024)), **overlap(x.device),
    )  # fmt: skip
    return y


def plain(
    x: Tensor, weight: Tensor, epsilon: float, act: bool, scale: Tensor | None = None, residual: Tensor | None = None
) -> Tensor:
    """residual + scale · norm(x), or the tanh form of GELU of the norm alone, with what there is of both."""
    y = F.rms_norm(x, x.shape[-1:], weight, epsilon)
    y = F.gelu(y, approximate="tanh") if act else y
    y = y if scale is None else y * scale
    return y if residual is None else residual + y


@triton.jit
def _channel_norm(
    x_ptr, weight_ptr, scale_ptr, residual_ptr, y_ptr, pixels, width, epsilon,
    GELU: tl.constexpr, SCALED: tl.constexpr, ADDED: tl.constexpr, EACH: tl.constexpr, BLOCK: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    pixel = tl.program_id(0) * EACH + tl.arange(0, EACH)
    channel = tl.arange(0, BLOCK)
    inside = channel < width
    there = (pixel < pixels)[:, None] & inside[None, :]
    place = pixel.to(tl.int64)[:, None] * width + channel[None, :]
    weight = tl.load(weight_ptr + channel, mask=inside, other=0.0).to(tl.float32)
    if SCALED:
        weight *= tl.load(scale_ptr + channel, mask=inside, other=0.0).to(tl.float32)
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    x = tl.load(x_ptr + place, mask=there, other=0.0).to(tl.float32)
    y = rms_normed_rows(x, width, epsilon) * weight[None, :]
    if GELU:
        y = gelu(y)
    if ADDED:
        y += tl.load(residual_ptr + place, mask=there, other=0.0).to(tl.float32)
    tl.store(y_ptr + place, y.to(y_ptr.dtype.element_ty), mask=there)
