"""Products of few rows with weights in 8- or 4-bit integers, which are multiplied out in registers.

Forms of the integers and their scales are those of `mmcli/hub/quantized.py`: int8 [N, K] with a scale a row, or uint8
[N, K / 2], two 4-bit integers a byte, with a scale for each 32 columns.
"""

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from mmcli.hub.quantized import GROUP, multiplied
from mmcli.layers.kernels.launch import overlap

# Of a single row: (columns that a program reads at a time of each output's weights, numbers at a time).
TILE = (1024, 4096)
# Of several rows: (outputs of a program, columns at a time).
DOT_TILE = {"int8": (16, 256), "int4": (16, 256)}
OUT_TILE = 4096  # numbers that a program multiplies out


def product(x: Tensor, stored: Tensor, scale: Tensor) -> Tensor:
    """What `plain` computes: x [R, K] and a weight [N, K] in integers → [R, N], sums in float32."""
    x = x.contiguous()
    rows, inputs = x.shape
    outputs, narrow = len(stored), stored.dtype == torch.uint8
    y = torch.empty(rows, outputs, dtype=x.dtype, device=x.device)
    if rows == 1:
        wide = min(TILE[0], triton.next_power_of_2(inputs))
        count = max(TILE[1] // wide, 1)
        kernel = _one_row_int4 if narrow else _one_row_int8
        kernel[(triton.cdiv(outputs, count),)](
            x, stored, scale, y, outputs, INPUTS=inputs, OUT=count, IN=wide, num_warps=4, **overlap(x.device)
        )
        return y
    count, wide = DOT_TILE["int4" if narrow else "int8"]
    kernel = _rows_int4 if narrow else _rows_int8
    kernel[(triton.cdiv(outputs, count),)](
        x, stored, scale, y, rows, outputs, INPUTS=inputs, ROWS=max(16, triton.next_power_of_2(rows)), OUT=count,
        IN=wide, num_warps=4, num_stages=4, **overlap(x.device),
    )  # fmt: skip
    return y


def plain(x: Tensor, stored: Tensor, scale: Tensor) -> Tensor:
    """x Wᵀ with the weight multiplied out in float32."""
    return F.linear(x.float(), multiplied(stored, scale)).to(x.dtype)


def multiply_out(stored: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """`multiplied` in one pass, rounded to `dtype`: [N, K]."""
    narrow = stored.dtype == torch.uint8
    stored, scale = stored.contiguous(), scale.contiguous()
    outputs, inputs = len(stored), stored.shape[1] * (2 if narrow else 1)
    whole = torch.empty(outputs, inputs, dtype=dtype, device=stored.device)
    if narrow:
        numbers = stored.numel()
        _multiply_out_int4[(triton.cdiv(numbers, OUT_TILE),)](
            stored, scale, whole, numbers, HALF=GROUP // 2, BLOCK=OUT_TILE, num_warps=4
        )
    else:
        grid = (outputs, triton.cdiv(inputs, OUT_TILE))
        _multiply_out_int8[grid](stored, scale, whole, INPUTS=inputs, BLOCK=OUT_TILE, num_warps=4)
    return whole


@triton.jit
def _one_row_int8(
    x_ptr, stored_ptr, scale_ptr, y_ptr, outputs,
    INPUTS: tl.constexpr, OUT: tl.constexpr, IN: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    output = tl.program_id(0) * OUT + tl.arange(0, OUT)
    column = tl.arange(0, IN)
    tile = stored_ptr + output.to(tl.int64)[:, None] * INPUTS + column[None, :]
    there = (output < outputs)[:, None]
    # Read a tile ahead: the first one while the kernel before this one still computes x.
    weight = tl.load(tile, mask=there & (column < INPUTS)[None, :], other=0, eviction_policy="evict_first")
    scale = tl.load(scale_ptr + output, mask=output < outputs, other=0.0)
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    sums = tl.zeros((OUT, IN), tl.float32)
    for first in range(0, INPUTS, IN):
        ahead = there & (first + IN + column < INPUTS)[None, :]
        following = tl.load(tile + first + IN, mask=ahead, other=0, eviction_policy="evict_first")
        x = tl.load(x_ptr + first + column, mask=first + column < INPUTS, other=0.0).to(tl.float32)
        sums += x[None, :] * weight.to(tl.float32)
        weight = following
    y = tl.sum(sums, axis=1) * scale
    tl.store(y_ptr + output, y.to(y_ptr.dtype.element_ty), mask=output < outputs)


@triton.jit
def _one_row_int4(
    x_ptr, stored_ptr, scale_ptr, y_ptr, outputs,
    INPUTS: tl.constexpr, OUT: tl.constexpr, IN: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    GROUPS: tl.constexpr = IN // 32
    output = tl.program_id(0) * OUT + tl.arange(0, OUT)
    group, byte = tl.arange(0, GROUPS), tl.arange(0, 16)
    place = group[:, None] * 16 + byte[None, :]  # of a byte in a tile's row
    row = output.to(tl.int64)
    tile = stored_ptr + row[:, None, None] * (INPUTS // 2) + place[None, :, :]
    scales = scale_ptr + row[:, None] * (INPUTS // 32) + group[None, :]
    there = output < outputs
    first_mask = there[:, None, None] & (place < INPUTS // 2)[None, :, :]
    weight = tl.load(tile, mask=first_mask, other=0, eviction_policy="evict_first")
    scale = tl.load(scales, mask=there[:, None] & (group < INPUTS // 32)[None, :], other=0.0)
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    sums = tl.zeros((OUT, GROUPS), tl.float32)
    for first in range(0, INPUTS, IN):
        inside = (first + IN) // 2 + place < INPUTS // 2
        following = tl.load(
            tile + (first + IN) // 2, mask=there[:, None, None] & inside[None, :, :], other=0,
            eviction_policy="evict_first",
        )  # fmt: skip
        inside = (first + IN) // 32 + group < INPUTS // 32
        coming = tl.load(scales + (first + IN) // 32, mask=there[:, None] & inside[None, :], other=0.0)
        known = first + 2 * place < INPUTS
        even = tl.load(x_ptr + first + 2 * place, mask=known, other=0.0).to(tl.float32)
        odd = tl.load(x_ptr + first + 2 * place + 1, mask=known, other=0.0).to(tl.float32)
        low = (weight & 15).to(tl.float32) - 8.0
        high = (weight >> 4).to(tl.float32) - 8.0
        sums += tl.sum(low * even[None, :, :] + high * odd[None, :, :], axis=2) * scale
        weight, scale = following, coming
    y = tl.sum(sums, axis=1)
    tl.store(y_ptr + output, y.to(y_ptr.dtype.element_ty), mask=there)


@triton.jit
def _rows_int8(
    x_ptr, stored_ptr, scale_ptr, y_ptr, rows, outputs,
    INPUTS: tl.constexpr, ROWS: tl.constexpr, OUT: tl.constexpr, IN: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    output = tl.program_id(0) * OUT + tl.arange(0, OUT)
    row, column = tl.arange(0, ROWS), tl.arange(0, IN)
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    sums = tl.zeros((ROWS, OUT), tl.float32)
    for first in range(0, INPUTS, IN):
        inside = first + column < INPUTS
        x = tl.load(x_ptr + row[:, None] * INPUTS + first + column[None, :],
                    mask=(row < rows)[:, None] & inside[None, :], other=0.0)  # fmt: skip
        weight = tl.load(stored_ptr + output.to(tl.int64)[:, None] * INPUTS + first + column[None, :],
                         mask=(output < outputs)[:, None] & inside[None, :], other=0)  # fmt: skip
        sums = tl.dot(x, tl.trans(weight.to(x.dtype)), sums, input_precision="ieee")
    scale = tl.load(scale_ptr + output, mask=output < outputs, other=0.0)
    place = y_ptr + row[:, None] * outputs + output[None, :]
    y = (sums * scale[None, :]).to(y_ptr.dtype.element_ty)
    tl.store(place, y, mask=(row < rows)[:, None] & (output < outputs)[None, :])


@triton.jit
def _rows_int4(
    x_ptr, stored_ptr, scale_ptr, y_ptr, rows, outputs,
    INPUTS: tl.constexpr, ROWS: tl.constexpr, OUT: tl.constexpr, IN: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    HALF: tl.constexpr = IN // 2
    output = tl.program_id(0) * OUT + tl.arange(0, OUT)
    row, byte = tl.arange(0, ROWS), tl.arange(0, HALF)
    there = (output < outputs)[:, None]
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    sums = tl.zeros((ROWS, OUT), tl.float32)
    for first in range(0, INPUTS, IN):
        known = (row < rows)[:, None] & (first + 2 * byte < INPUTS)[None, :]
        place = x_ptr + row[:, None] * INPUTS + first + 2 * byte[None, :]
        even, odd = tl.load(place, mask=known, other=0.0), tl.load(place + 1, mask=known, other=0.0)
        inside = there & (first // 2 + byte < INPUTS // 2)[None, :]
        line = output.to(tl.int64)[:, None]
        weight = tl.load(stored_ptr + line * (INPUTS // 2) + first // 2 + byte[None, :], mask=inside, other=0)
        scale = tl.load(scale_ptr + line * (INPUTS // 32) + first // 32 + byte[None, :] // 16, mask=inside, other=0.0)
        low = (((weight & 15).to(tl.float32) - 8.0) * scale).to(even.dtype)
        high = (((weight >> 4).to(tl.float32) - 8.0) * scale).to(even.dtype)
        sums = tl.dot(even, tl.trans(low), sums, input_precision="ieee")
        sums = tl.dot(odd, tl.trans(high), sums, input_precision="ieee")
    place = y_ptr + row[:, None] * outputs + output[None, :]
    tl.store(place, sums.to(y_ptr.dtype.element_ty), mask=(row < rows)[:, None] & (output < outputs)[None, :])


@triton.jit
def _multiply_out_int8(stored_ptr, scale_ptr, whole_ptr, INPUTS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    number = tl.load(stored_ptr + row * INPUTS + column, mask=column < INPUTS, other=0).to(tl.float32)
    whole = (number * tl.load(scale_ptr + row)).to(whole_ptr.dtype.element_ty)
    tl.store(whole_ptr + row * INPUTS + column, whole, mask=column < INPUTS)


@triton.jit
def _multiply_out_int4(stored_ptr, scale_ptr, whole_ptr, numbers, HALF: tl.constexpr, BLOCK: tl.constexpr):
    byte = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    weight = tl.load(stored_ptr + byte, mask=byte < numbers, other=0)
    scale = tl.load(scale_ptr + byte // HALF, mask=byte < numbers, other=0.0)
    low = ((weight & 15).to(tl.float32) - 8.0) * scale
    high = ((weight >> 4).to(tl.float32) - 8.0) * scale
    kind = whole_ptr.dtype.element_ty
    place = tl.program_id(0).to(tl.int64) * (2 * BLOCK) + tl.arange(0, 2 * BLOCK)
    tl.store(whole_ptr + place, tl.interleave(low.to(kind), high.to(kind)), mask=place < 2 * numbers)
