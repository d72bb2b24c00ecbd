"""Residual addition and LayerNorm (Ba et al., arXiv:1607.06450) as one kernel."""

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from mmcli.layers.kernels.functions import layer_normed
from mmcli.layers.kernels.launch import overlap


def residual_layer_norm(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """What `plain` computes, in one pass: x and y [R, D] → (sum, its norm), both [R, D] in the type of x."""
    rows, width = x.shape
    total, normed = torch.empty_like(x), torch.empty_like(x)
    block = triton.next_power_of_2(width)
    _residual_layer_norm[(rows,)](
        x, y, weight, bias, total, normed, width, epsilon,
        BLOCK=block, num_warps=min(16, max(1, block // 256)), **overlap(x.device),
    )  # fmt: skip
    return total, normed


def plain(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """x + y, and the LayerNorm of that with `weight` and `bias` [D]."""
    total = x + y
    return total, F.layer_norm(total, weight.shape, weight, bias, epsilon)


@triton.jit
def _residual_layer_norm(
    x_ptr, y_ptr, weight_ptr, bias_ptr, total_ptr, normed_ptr, width, epsilon, BLOCK: tl.constexpr, PDL: tl.constexpr
):  # fmt: skip
    column = tl.arange(0, BLOCK)
    there = column < width
    place = tl.program_id(0) * width + column
    weight = tl.load(weight_ptr + column, mask=there, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + column, mask=there, other=0.0).to(tl.float32)
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    x = tl.load(x_ptr + place, mask=there, other=0.0).to(tl.float32)
    y = tl.load(y_ptr + place, mask=there, other=0.0).to(tl.float32)
    # Rounded as it is written, so that the norm is that of what the next layer reads.
    total = (x + y).to(total_ptr.dtype.element_ty)
    tl.store(total_ptr + place, total, mask=there)
    normed = layer_normed(total.to(tl.float32), there, width, epsilon) * weight + bias
    tl.store(normed_ptr + place, normed.to(normed_ptr.dtype.element_ty), mask=there)
