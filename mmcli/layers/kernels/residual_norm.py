"""Residual addition and RMSNorm (Zhang & Sennrich, arXiv:1910.07467) as one kernel."""

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from mmcli.layers.kernels.functions import rms_normed
from mmcli.layers.kernels.launch import overlap

NUMBERS_OF_PARTS = 128  # of a warp, where there are parts to add up


def residual_norm(
    x: Tensor, y: Tensor, inner: Tensor | None, outer: Tensor, epsilon: float, alpha: float = 1.0
) -> tuple[Tensor, Tensor]:
    """What `plain` computes, in one pass: x and y [R, D] → (sum, its norm), both [R, D] in the type of x.

    y may also be parts [S, R, D] of what is to be added.
    """
    rows, width = x.shape
    total, normed = torch.empty_like(x), torch.empty_like(x)
    block = triton.next_power_of_2(width)
    parts = len(y) if y.ndim == 3 else 1
    each = 256 if parts == 1 else NUMBERS_OF_PARTS
    _residual_norm[(rows,)](
        x, y, inner, outer, total, normed, width, epsilon, alpha,
        SANDWICH=inner is not None, PARTS=parts, BLOCK=block, num_warps=min(16, max(1, block // each)),
        **overlap(x.device),
    )  # fmt: skip
    return total, normed


def norm(x: Tensor, scale: Tensor, epsilon: float) -> Tensor:
    """The RMSNorm of x [R, D] by the scale [D], in the type of x."""
    rows, width = x.shape
    normed, block = torch.empty_like(x), triton.next_power_of_2(width)
    _norm[(rows,)](
        x, scale, normed, width, epsilon, BLOCK=block, num_warps=min(16, max(1, block // 256)), **overlap(x.device)
    )
    return normed


def plain(
    x: Tensor, y: Tensor, inner: Tensor | None, outer: Tensor, epsilon: float, alpha: float = 1.0
) -> tuple[Tensor, Tensor]:
    """x + alpha · y, or x + alpha · norm(y) by the scale `inner` (Gemma 2), and the norm of that by the scale `outer`.

    Scales [D] are the whole factor: the weight of Llama's form, 1 + weight of Gemma's.
    """
    y = y.sum(dim=0).to(x.dtype) if y.ndim == 3 else y
    if inner is not None:
        y = F.rms_norm(y.float(), y.shape[-1:], inner.float(), epsilon).to(y.dtype)
    total = x.add(y, alpha=alpha)
    return total, F.rms_norm(total.float(), x.shape[-1:], outer.float(), epsilon).to(x.dtype)


@triton.jit
def _norm(x_ptr, scale_ptr, normed_ptr, width, epsilon, BLOCK: tl.constexpr, PDL: tl.constexpr):
    column = tl.arange(0, BLOCK)
    there = column < width
    place = tl.program_id(0) * width + column
    scale = tl.load(scale_ptr + column, mask=there, other=0.0).to(tl.float32)
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    x = tl.load(x_ptr + place, mask=there, other=0.0).to(tl.float32)
    normed = rms_normed(x, width, epsilon) * scale
    tl.store(normed_ptr + place, normed.to(normed_ptr.dtype.element_ty), mask=there)


@triton.jit
def _residual_norm(
    x_ptr, y_ptr, inner_ptr, outer_ptr, total_ptr, normed_ptr, width, epsilon, alpha,
    SANDWICH: tl.constexpr, PARTS: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    column = tl.arange(0, BLOCK)
    there = column < width
    place = row * width + column
    outer = tl.load(outer_ptr + column, mask=there, other=0.0).to(tl.float32)
    if SANDWICH:
        inner = tl.load(inner_ptr + column, mask=there, other=0.0).to(tl.float32)
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    x = tl.load(x_ptr + place, mask=there, other=0.0).to(tl.float32)
    y = tl.load(y_ptr + place, mask=there, other=0.0).to(tl.float32)
    for part in tl.static_range(1, PARTS):
        y += tl.load(y_ptr + part * tl.num_programs(0) * width + place, mask=there, other=0.0).to(tl.float32)
    if SANDWICH:
        y = rms_normed(y, width, epsilon) * inner
    # Rounded as it is written, so that the norm is that of what the next layer reads.
    total = (x + alpha * y).to(total_ptr.dtype.element_ty)
    tl.store(total_ptr + place, total, mask=there)
    normed = rms_normed(total.to(tl.float32), width, epsilon) * outer
    tl.store(normed_ptr + place, normed.to(normed_ptr.dtype.element_ty), mask=there)
