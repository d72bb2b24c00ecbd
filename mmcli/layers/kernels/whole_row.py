"""The product of one row with a narrow weight: each program asks for all of its weights before x is there.

For widths that are a power of two or the sum of two such, so that no part of a tile is empty.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from mmcli.layers.kernels.launch import overlap

OUTPUTS = 4  # of a program
WIDTHS = (1280, 5120)  # of x, that were measured


def fits(x: Tensor, weight: Tensor) -> bool:
    """Whether `whole_row` takes x and a weight, and was measured to be the faster one."""
    return len(x) == 1 and weight.shape[1] in WIDTHS and x.dtype == weight.dtype and weight.is_contiguous()


def whole_row(x: Tensor, weight: Tensor, bias: Tensor | None = None, floats: bool = False) -> Tensor:
    """What `matvec.plain` computes of x [1, K] → [1, N], sums in float32; `floats`: rounded as x is, but in float32."""
    outputs, inputs = weight.shape
    first = 1 << (inputs.bit_length() - 1)
    y = torch.empty(1, outputs, dtype=torch.float32 if floats else x.dtype, device=x.device)
    _whole_row[(triton.cdiv(outputs, OUTPUTS),)](
        x, weight, bias, y, outputs, INPUTS=inputs, FIRST=first, REST=inputs - first, OUT=OUTPUTS,
        BIASED=bias is not None, num_warps=4, **overlap(x.device),
    )  # fmt: skip
    return y


@triton.jit
def _whole_row(
    x_ptr, weight_ptr, bias_ptr, y_ptr, outputs,
    INPUTS: tl.constexpr, FIRST: tl.constexpr, REST: tl.constexpr, OUT: tl.constexpr, BIASED: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    output = tl.program_id(0) * OUT + tl.arange(0, OUT)
    asked = output < outputs
    row = weight_ptr + output.to(tl.int64)[:, None] * INPUTS
    column = tl.arange(0, FIRST)
    weight = tl.load(row + column[None, :], mask=asked[:, None], other=0.0, eviction_policy="evict_first")
    if REST > 0:
        behind = FIRST + tl.arange(0, REST)
        weight_behind = tl.load(row + behind[None, :], mask=asked[:, None], other=0.0, eviction_policy="evict_first")
    if BIASED:
        bias = tl.load(bias_ptr + output, mask=asked, other=0.0).to(tl.float32)
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    y = tl.sum(tl.load(x_ptr + column).to(tl.float32)[None, :] * weight.to(tl.float32), axis=1)
    if REST > 0:
        y += tl.sum(tl.load(x_ptr + behind).to(tl.float32)[None, :] * weight_behind.to(tl.float32), axis=1)
    if BIASED:
        y += bias
    tl.store(y_ptr + output, y.to(x_ptr.dtype.element_ty).to(y_ptr.dtype.element_ty), mask=asked)
