"""Products of few rows with weights in 8- or 4-bit integers, which are multiplied out in registers.

Forms of the integers and their scales are those of `mmcli/hub/quantized.py`: int8 [N, K] with a scale a row, or uint8
[N, K / 2], two 4-bit integers a byte, with a scale for each 32 columns.

Measured on an H200 with PaliGemma 3B: a step of one row takes 0.71 of its time in bfloat16 with 8-bit integers, and as
long with 4-bit ones, whose unpacking costs what reading fewer bytes saves. Of 16 rows it takes 1.3 times as long with
8-bit integers. With 4-bit ones a kernel took 3.5 times as long, so several rows have them multiplied out in a pass of
its own: 2.2 times.
"""

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from mmcli.hub.quantized import GROUP, multiplied
from mmcli.layers.kernels.launch import overlap

# Of a single row and int8: columns that a program reads at a time of each output's weights, numbers at a time.
TILE = (1024, 4096)
# Of a single row and int4: outputs of a program, words (of 4 bytes) that it reads at a time of each.
WORD_TILE = (4, 256)
# Of several rows and int8: outputs of a program, columns at a time.
DOT_TILE = (16, 256)
OUT_TILE = 4096  # numbers that a program multiplies out


def fits(rows: int, stored: Tensor) -> bool:
    """Whether `product` takes so many rows."""
    return rows == 1 or stored.dtype == torch.int8


def product(x: Tensor, stored: Tensor, scale: Tensor) -> Tensor:
    """What `plain` computes: x [R, K] and a weight [N, K] in integers → [R, N], sums in float32."""
    x, (rows, inputs), outputs = x.contiguous(), x.shape, len(stored)
    y = torch.empty(rows, outputs, dtype=x.dtype, device=x.device)
    more = overlap(x.device)
    if rows > 1:
        count, wide = DOT_TILE
        _rows_int8[(triton.cdiv(outputs, count),)](
            x, stored, scale, y, rows, outputs, INPUTS=inputs, ROWS=max(16, triton.next_power_of_2(rows)), OUT=count,
            IN=wide, num_warps=4, num_stages=4, **more,
        )  # fmt: skip
    elif stored.dtype == torch.int8:
        wide = min(TILE[0], triton.next_power_of_2(inputs))
        count = max(TILE[1] // wide, 1)
        _one_row_int8[(triton.cdiv(outputs, count),)](
            x, stored, scale, y, outputs, INPUTS=inputs, OUT=count, IN=wide, num_warps=4, **more
        )
    else:
        words = stored.view(torch.int32)
        count, wide = WORD_TILE[0], min(WORD_TILE[1], triton.next_power_of_2(words.shape[1]))
        _one_row_int4[(triton.cdiv(outputs, count),)](
            x, words, scale, y, outputs, WORDS=words.shape[1], OUT=count, WIDE=wide, num_warps=2, **more
        )
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
    x_ptr, words_ptr, scale_ptr, y_ptr, outputs,
    WORDS: tl.constexpr, OUT: tl.constexpr, WIDE: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """A word's eight integers are put into mantissas, one after the other: f = 1 + u / 16, where u = integer + 8.

    That is quicker than to convert integers, and what is added comes off the sums: Σ x · integer = 16 Σ x · f − 24 Σ x.
    """
    output = tl.program_id(0) * OUT + tl.arange(0, OUT)
    word = tl.arange(0, WIDE)
    tile = words_ptr + output.to(tl.int64)[:, None] * WORDS + word[None, :]
    there = (output < outputs)[:, None]
    # Read a tile ahead: the first one while the kernel before this one still computes x.
    weight = tl.load(tile, mask=there & (word < WORDS)[None, :], other=0, eviction_policy="evict_first")
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    sums = tl.zeros((OUT, WIDE), tl.float32)
    for first in range(0, WORDS, WIDE):
        known = first + word < WORDS
        ahead = there & (first + WIDE + word < WORDS)[None, :]
        following = tl.load(tile + first + WIDE, mask=ahead, other=0, eviction_policy="evict_first")
        products = tl.zeros((OUT, WIDE), tl.float32)
        total = tl.zeros((WIDE,), tl.float32)
        for number in tl.static_range(8):
            x = tl.load(x_ptr + (first + word) * 8 + number, mask=known, other=0.0).to(tl.float32)
            total += x
            products += x[None, :] * _mantissa(weight, number)
        group = (first + word) // 4
        scales = scale_ptr + output.to(tl.int64)[:, None] * (WORDS // 4) + group[None, :]
        scale = tl.load(scales, mask=there & known[None, :], other=0.0).to(tl.float32)
        sums += (products * 16 - total[None, :] * 24) * scale
        weight = following
    y = tl.sum(sums, axis=1)
    tl.store(y_ptr + output, y.to(y_ptr.dtype.element_ty), mask=output < outputs)


@triton.jit
def _mantissa(word, number: tl.constexpr):
    """1 + u / 16 of one of the eight numbers in words."""
    SHIFT: tl.constexpr = 19 - 4 * number
    moved = word << SHIFT if SHIFT >= 0 else word >> -SHIFT
    return ((moved & 0x780000) | 0x3F800000).to(tl.float32, bitcast=True)


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
