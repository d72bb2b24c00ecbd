"""What attention and LAUREL add to the active stream, and the norm in front of the MLP, as one kernel."""

from math import sqrt
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from mmcli.layers.kernels.functions import rms_normed
from mmcli.layers.kernels.launch import overlap

HALF = tl.constexpr(sqrt(0.5))


def joined(layer: Any, predicted: Tensor, normed: Tensor, attended: Tensor, low_rank: Tensor) -> tuple[Tensor, Tensor]:
    """What `plain` computes → [R, D] twice."""
    rows, count, width = predicted.shape
    x, ready = torch.empty_like(normed), torch.empty_like(normed)
    block = triton.next_power_of_2(width)
    _joined[(rows,)](
        predicted, normed, attended, low_rank, layer.norm_attention_out.weight, layer.laurel.norm.weight,
        layer.norm_mlp.weight, x, ready, count * width, width, layer.norm_mlp.eps,
        BLOCK=block, num_warps=min(16, max(1, block // 256)), **overlap(x.device),
    )  # fmt: skip
    return x, ready


def plain(layer: Any, predicted: Tensor, normed: Tensor, attended: Tensor, low_rank: Tensor) -> tuple[Tensor, Tensor]:
    """The active one of the streams predicted [R, A, D], its norm [R, D], what attention made of that, and its product
    with LAUREL's matrices → their sum, and the norm of it for the MLP."""
    aside = normed + layer.laurel.norm(low_rank)
    x = (predicted[:, 0] + layer.norm_attention_out(attended) + aside) * sqrt(0.5)
    return x, layer.norm_mlp(x)


@triton.jit
def _joined(
    predicted_ptr, normed_ptr, attended_ptr, low_rank_ptr, attended_norm_ptr, low_rank_norm_ptr, next_norm_ptr,
    x_ptr, ready_ptr, stride, width, epsilon, BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    column = tl.arange(0, BLOCK)
    there = column < width
    place = row * width + column
    attended_norm = tl.load(attended_norm_ptr + column, mask=there, other=0.0).to(tl.float32)
    low_rank_norm = tl.load(low_rank_norm_ptr + column, mask=there, other=0.0).to(tl.float32)
    next_norm = tl.load(next_norm_ptr + column, mask=there, other=0.0).to(tl.float32)
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    x = tl.load(predicted_ptr + row * stride + column, mask=there, other=0.0).to(tl.float32)
    x += tl.load(normed_ptr + place, mask=there, other=0.0).to(tl.float32)
    attended = tl.load(attended_ptr + place, mask=there, other=0.0).to(tl.float32)
    x += rms_normed(attended, width, epsilon) * attended_norm
    low_rank = tl.load(low_rank_ptr + place, mask=there, other=0.0).to(tl.float32)
    x = (x + rms_normed(low_rank, width, epsilon) * low_rank_norm) * HALF
    x = x.to(x_ptr.dtype.element_ty)
    tl.store(x_ptr + place, x, mask=there)
    ready = rms_normed(x.to(tl.float32), width, epsilon) * next_norm
    tl.store(ready_ptr + place, ready.to(x_ptr.dtype.element_ty), mask=there)
