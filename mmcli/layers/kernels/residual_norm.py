"""Residual addition and RMSNorm (Zhang & Sennrich, arXiv:1910.07467) as one kernel."""

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor


def residual_norm(x: Tensor, y: Tensor, inner: Tensor | None, outer: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """What `plain` computes, in one pass: x and y [R, D] → (sum, its norm), both [R, D] in the type of x."""
    rows, width = x.shape
    total, normed = torch.empty_like(x), torch.empty_like(x)
    block = triton.next_power_of_2(width)
    warps = min(16, max(1, block // 256))
    _kernel[(rows,)](
        x, y, inner, outer, total, normed, x.stride(0), y.stride(0), width, epsilon,
        SANDWICH=inner is not None, BLOCK=block, num_warps=warps,
    )  # fmt: skip
    return total, normed


def plain(x: Tensor, y: Tensor, inner: Tensor | None, outer: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """x + y, or x + norm(y) by the scale `inner` (Gemma 2), and the norm of that by the scale `outer`.

    Scales [D] are the whole factor: the weight of Llama's form, 1 + weight of Gemma's.
    """
    if inner is not None:
        y = F.rms_norm(y.float(), y.shape[-1:], inner.float(), epsilon).to(y.dtype)
    total = x + y
    return total, F.rms_norm(total.float(), x.shape[-1:], outer.float(), epsilon).to(x.dtype)


@triton.jit
def _kernel(
    x_ptr, y_ptr, inner_ptr, outer_ptr, total_ptr, normed_ptr, x_stride, y_stride, width, epsilon,
    SANDWICH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    column = tl.arange(0, BLOCK)
    there = column < width
    x = tl.load(x_ptr + row * x_stride + column, mask=there, other=0.0).to(tl.float32)
    y = tl.load(y_ptr + row * y_stride + column, mask=there, other=0.0).to(tl.float32)
    if SANDWICH:
        scale = tl.load(inner_ptr + column, mask=there, other=0.0).to(tl.float32)
        y = y * (1.0 / tl.sqrt(tl.sum(y * y, axis=0) / width + epsilon)) * scale
    # Rounded as it is written, so that the norm is that of what the next layer reads.
    total = (x + y).to(total_ptr.dtype.element_ty)
    tl.store(total_ptr + row * width + column, total, mask=there)
    total = total.to(tl.float32)
    scale = tl.load(outer_ptr + column, mask=there, other=0.0).to(tl.float32)
    normed = total * (1.0 / tl.sqrt(tl.sum(total * total, axis=0) / width + epsilon)) * scale
    tl.store(normed_ptr + row * width + column, normed.to(normed_ptr.dtype.element_ty), mask=there)
