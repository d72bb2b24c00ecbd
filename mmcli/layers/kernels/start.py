"""What a step computes before its first layer: angles of rotations, and masks as numbers to add.

None of these kernels lets the next one begin early, so that whoever follows may read what they wrote before it waits
(`launch.py`).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


def angles(positions: Tensor, periods: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Positions [B, 1] and positions per radian [H / 2] → what `rope.rotary_angles` gives, in `dtype`."""
    rows, half = positions.shape[0], len(periods)
    cos, sin = torch.empty(2, rows, 1, 1, 2 * half, dtype=dtype, device=positions.device)
    _angles[(rows,)](positions, periods, cos, sin, HALF=half, WIDE=triton.next_power_of_2(half), num_warps=1)
    return cos, sin


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """`attention.additive` of a mask whose numbers follow each other."""
    bias = torch.empty(mask.shape, dtype=dtype, device=mask.device)
    count, low = mask.numel(), torch.finfo(dtype).min
    _additive[(triton.cdiv(count, BLOCK),)](mask.view(torch.uint8), bias, count, low, BLOCK=BLOCK, num_warps=4)
    return bias


@triton.jit
def _angles(positions_ptr, periods_ptr, cos_ptr, sin_ptr, HALF: tl.constexpr, WIDE: tl.constexpr):
    row = tl.program_id(0)
    pair = tl.arange(0, WIDE)
    there = pair < HALF
    position = tl.load(positions_ptr + row).to(tl.float32)
    angle = tl.div_rn(position + tl.zeros((WIDE,), tl.float32), tl.load(periods_ptr + pair, mask=there, other=1.0))
    cos = tl.cos(angle)
    sin = tl.sin(angle)
    kind = cos_ptr.dtype.element_ty
    at = row * 2 * HALF + pair
    tl.store(cos_ptr + at, cos.to(kind), mask=there)
    tl.store(cos_ptr + at + HALF, cos.to(kind), mask=there)
    tl.store(sin_ptr + at, (-sin).to(kind), mask=there)
    tl.store(sin_ptr + at + HALF, sin.to(kind), mask=there)


@triton.jit
def _additive(mask_ptr, bias_ptr, count, low, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    seen = tl.load(mask_ptr + place, mask=place < count, other=0) != 0
    tl.store(bias_ptr + place, tl.where(seen, 0.0, low).to(bias_ptr.dtype.element_ty), mask=place < count)
