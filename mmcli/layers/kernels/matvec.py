"""The product of a few rows with a weight, as fast as the memory hands the weight out.

What stands before or behind a product in a decoder is done in passing: the RMSNorm of what it reads, GELU · up of two
halves, the residual addition, and the soft-cap of logits.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from mmcli.layers.kernels import gated_gelu


@dataclass(frozen=True)
class Tiles:
    """How the work is cut: outputs and inputs that a program holds at a time, and its warps."""

    outputs: int
    inputs: int
    warps: int


def tiles(outputs: int, inputs: int, rows: int, gated: bool) -> Tiles:
    """The tiles for a weight [outputs, inputs]: about 8 KB in flight a program, and many programs."""
    wide = min(1024, triton.next_power_of_2(inputs))
    count = 1 if gated else 2
    return Tiles(count, wide, 4)


def matvec(
    x: Tensor,
    weight: Tensor,
    *,
    norm: Tensor | None = None,
    epsilon: float = 0.0,
    gated: bool = False,
    residual: Tensor | None = None,
    softcap: float | None = None,
    dtype: torch.dtype | None = None,
    cut: Tiles | None = None,
) -> Tensor:
    """What `plain` computes: x [R, K] (few rows) and weight [N, K] → [R, N], or [R, N/2] where `gated`."""
    x = x.contiguous()
    rows, inputs = x.shape
    outputs = weight.shape[0] // 2 if gated else weight.shape[0]
    y = torch.empty(rows, outputs, dtype=dtype or x.dtype, device=x.device)
    cut = cut or tiles(outputs, inputs, rows, gated)
    _kernel[(triton.cdiv(outputs, cut.outputs),)](
        x, weight, norm, residual, y, outputs, epsilon, softcap or 1.0, rows,
        INPUTS=inputs, ROWS=triton.next_power_of_2(rows), OUT=cut.outputs, IN=cut.inputs, NORM=norm is not None,
        GATED=gated, RESIDUAL=residual is not None, CAP=softcap is not None, num_warps=cut.warps,
    )  # fmt: skip
    return y


def plain(
    x: Tensor,
    weight: Tensor,
    *,
    norm: Tensor | None = None,
    epsilon: float = 0.0,
    gated: bool = False,
    residual: Tensor | None = None,
    softcap: float | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """residual + x Wᵀ, of the norm of x by a scale `norm` [K]; or gelu(x Wᵀ) · x Vᵀ of the halves of a weight; or
    softcap · tanh(x Wᵀ / softcap)."""
    if norm is not None:
        x = F.rms_norm(x.float(), x.shape[-1:], norm.float(), epsilon).to(x.dtype)
    y = F.linear(x, weight)
    if gated:
        y = gated_gelu.plain(y)
    if residual is not None:
        y = residual + y
    y = y.to(dtype or x.dtype)
    return y if softcap is None else torch.tanh(y / softcap) * softcap


@triton.jit
def _kernel(
    x_ptr, weight_ptr, norm_ptr, residual_ptr, y_ptr, outputs, epsilon, softcap, rows,
    INPUTS: tl.constexpr, ROWS: tl.constexpr, OUT: tl.constexpr, IN: tl.constexpr, NORM: tl.constexpr,
    GATED: tl.constexpr, RESIDUAL: tl.constexpr, CAP: tl.constexpr,
):  # fmt: skip
    row = tl.arange(0, ROWS)
    output = tl.program_id(0) * OUT + tl.arange(0, OUT)
    weight_row = weight_ptr + output.to(tl.int64)[:, None] * INPUTS
    sums = tl.zeros((ROWS, OUT, IN), tl.float32)
    ups = tl.zeros((ROWS, OUT, IN), tl.float32)
    squares = tl.zeros((ROWS, IN), tl.float32)
    for first in range(0, INPUTS, IN):
        column = first + tl.arange(0, IN)
        inside = (output < outputs)[:, None] & (column < INPUTS)[None, :]
        weight = tl.load(weight_row + column[None, :], mask=inside, other=0.0, eviction_policy="evict_first")
        there = (row < rows)[:, None] & (column < INPUTS)[None, :]
        x = tl.load(x_ptr + row[:, None] * INPUTS + column[None, :], mask=there, other=0.0).to(tl.float32)
        if NORM:
            squares += x * x
            x = x * tl.load(norm_ptr + column, mask=column < INPUTS, other=0.0).to(tl.float32)[None, :]
        sums += x[:, None, :] * weight.to(tl.float32)[None, :, :]
        if GATED:
            below = weight_ptr + (output.to(tl.int64) + outputs)[:, None] * INPUTS + column[None, :]
            weight = tl.load(below, mask=inside, other=0.0, eviction_policy="evict_first")
            ups += x[:, None, :] * weight.to(tl.float32)[None, :, :]
    y = tl.sum(sums, axis=2)
    if NORM:
        shrink = (1.0 / tl.sqrt(tl.sum(squares, axis=1) / INPUTS + epsilon))[:, None]
        y = y * shrink
    if GATED:
        up = tl.sum(ups, axis=2)
        if NORM:
            up = up * shrink
        y = gated_gelu.gelu(y) * up
    place = row[:, None] * outputs + output[None, :]
    there = (row < rows)[:, None] & (output < outputs)[None, :]
    if RESIDUAL:
        y += tl.load(residual_ptr + place, mask=there, other=0.0).to(tl.float32)
    if CAP:
        y = softcap - 2.0 * softcap / (tl.exp(2.0 * y / softcap) + 1.0)
    tl.store(y_ptr + place, y.to(y_ptr.dtype.element_ty), mask=there)
