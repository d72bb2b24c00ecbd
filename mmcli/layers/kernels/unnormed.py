"""A row between two products: an addition and an RMSNorm that have no kernel of their own.

An RMSNorm is a factor of the whole row and a scale of each number. The scale is known before the row is, and the factor
may come last, behind the next product, since that is linear. So the product in front adds its numbers to the row and
leaves them scaled, with the sum of their squares; and the product behind it multiplies its sums by the factor.

Rows are rounded as often as `residual_norm` rounds them: the sum, and what is scaled.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor


class Scaled(NamedTuple):
    """A row whose norm lacks its factor."""

    total: Tensor  # [1, D], the row itself
    scaled: Tensor  # [1, D], total · the norm's scale
    squares: Tensor  # [S] float32, which sum up to that of total²
    epsilon: float


def plain(row: Scaled) -> Tensor:
    """The norm, [1, D]."""
    mean = row.squares.sum() / row.total.shape[1]
    return (row.scaled.float() * torch.rsqrt(mean + row.epsilon)).to(row.scaled.dtype)


@triton.jit
def added(upper, lower, x, outer, at, alpha, total_ptr, scaled_ptr, squares_ptr, outputs, HALF: tl.constexpr):
    """Numbers `at` and those `HALF` behind them of a product are added to the row's, `x`, and scaled by `outer`."""
    kind = total_ptr.dtype.element_ty
    upper = (x[0] + alpha * upper).to(kind)
    lower = (x[1] + alpha * lower).to(kind)
    tl.store(total_ptr + at, upper, mask=at < outputs)
    tl.store(total_ptr + at + HALF, lower, mask=at + HALF < outputs)
    # The norm is that of what the next layer reads.
    upper = tl.where(at < outputs, upper.to(tl.float32), 0.0)
    lower = tl.where(at + HALF < outputs, lower.to(tl.float32), 0.0)
    tl.store(scaled_ptr + at, (upper * outer[0]).to(kind), mask=at < outputs)
    tl.store(scaled_ptr + at + HALF, (lower * outer[1]).to(kind), mask=at + HALF < outputs)
    tl.store(squares_ptr, tl.sum(upper * upper + lower * lower, axis=0))


@triton.jit
def two_halves(ptr, at, outputs, HALF: tl.constexpr):
    """Numbers `at` and those `HALF` behind them, in float32."""
    upper = tl.load(ptr + at, mask=at < outputs, other=0.0).to(tl.float32)
    return upper, tl.load(ptr + at + HALF, mask=at + HALF < outputs, other=0.0).to(tl.float32)


@triton.jit
def factor(squares, width, epsilon):
    """What the norm of a row of `width` numbers multiplies all of them by."""
    return 1.0 / tl.sqrt(tl.sum(squares, axis=0) / width + epsilon)
