"""Products whose columns several programs share (split-K): what adds up their sums, and what follows a product."""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from mmcli.layers.kernels.functions import activated
from mmcli.layers.kernels.launch import overlap

BLOCK = 512  # outputs of a program


def added_up(
    sums: Tensor,
    dtype: torch.dtype,
    bias: Tensor | None = None,
    activation: str | None = None,
    times: Tensor | None = None,
) -> Tensor:
    """Sums of each share [S, R, N] in float32 → what `matvec.plain` computes of the whole product [R, N], in `dtype`.

    Shares are added in their order: so a row's numbers are the same in every run.
    """
    shares, rows, outputs = sums.shape
    y = torch.empty(rows, outputs, dtype=dtype, device=sums.device)
    _added_up[(triton.cdiv(outputs, BLOCK), rows)](
        sums, bias, times, y, outputs, 0 if times is None else times.stride(0), SHARES=shares, BLOCK=BLOCK,
        **followed_by(bias, activation, times), num_warps=4, **overlap(y.device),
    )  # fmt: skip
    return y


def followed_by(bias: Tensor | None, activation: str | None, times: Tensor | None) -> dict[str, bool | str]:
    """What `finished` has to do, as a kernel's constants."""
    return {"BIASED": bias is not None, "ACTIVATION": activation or "", "TIMES": times is not None}


@triton.jit
def finished(
    y, output, row, there, bias_ptr, times_ptr, outputs, times_stride,
    BIASED: tl.constexpr, TIMES: tl.constexpr, ACTIVATION: tl.constexpr,
):  # fmt: skip
    """What follows sums y of outputs and rows, which broadcast to its shape."""
    if BIASED:
        y += tl.load(bias_ptr + output, mask=output < outputs, other=0.0).to(tl.float32)
    y = activated(y, ACTIVATION)
    if TIMES:
        y *= tl.load(times_ptr + row * times_stride + output, mask=there, other=0.0).to(tl.float32)
    return y


@triton.jit
def _added_up(
    sums_ptr, bias_ptr, times_ptr, y_ptr, outputs, times_stride,
    SHARES: tl.constexpr, BLOCK: tl.constexpr, BIASED: tl.constexpr, TIMES: tl.constexpr, ACTIVATION: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(1)
    output = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = output < outputs
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    y = tl.zeros((BLOCK,), tl.float32)
    for share in tl.static_range(SHARES):
        at = (share * tl.num_programs(1) + row) * outputs + output
        y += tl.load(sums_ptr + at, mask=there, other=0.0)
    y = finished(y, output, row, there, bias_ptr, times_ptr, outputs, times_stride, BIASED, TIMES, ACTIVATION)
    tl.store(y_ptr + row * outputs + output, y.to(y_ptr.dtype.element_ty), mask=there)
