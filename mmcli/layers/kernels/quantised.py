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

# Of a single row: outputs of a program, words (of 4 bytes) that it reads at a time of each, warps.
ROW_TILES = {"int8": (16, 128, 4), "int4": (16, 128, 4)}
# Of several rows: outputs of a program, words at a time of each, warps, stages.
ROWS_TILES = {"int8": (64, 32, 4, 3), "int4": (64, 32, 4, 3)}
OUT_TILE = 4096  # numbers that a program multiplies out


def product(x: Tensor, stored: Tensor, scale: Tensor) -> Tensor:
    """What `plain` computes: x [R, K] and a weight [N, K] in integers → [R, N], sums in float32."""
    x, rows, outputs = x.contiguous(), len(x), len(stored)
    bits = 4 if stored.dtype == torch.uint8 else 8
    y = torch.empty(rows, outputs, dtype=x.dtype, device=x.device)
    words = stored.view(torch.int32)
    sizes = {"WORDS": words.shape[1], "BITS": bits, **overlap(x.device)}
    if rows == 1:
        count, wide, warps = ROW_TILES[f"int{bits}"]
        wide = min(wide, triton.next_power_of_2(words.shape[1]))
        _one_row[(triton.cdiv(outputs, count),)](
            x, words, scale, y, outputs, OUT=count, WIDE=wide, num_warps=warps, **sizes
        )
        return y
    count, wide, warps, stages = ROWS_TILES[f"int{bits}"]
    _rows[(triton.cdiv(outputs, count),)](
        x, words, scale, y, rows, outputs, ROWS=max(16, triton.next_power_of_2(rows)), OUT=count, WIDE=wide,
        num_warps=warps, num_stages=stages, **sizes,
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
def _one_row(
    x_ptr, words_ptr, scale_ptr, y_ptr, outputs,
    WORDS: tl.constexpr, BITS: tl.constexpr, OUT: tl.constexpr, WIDE: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """A row's integers are put into the mantissa of a float32: f = 1 + u / 2^BITS, where u = integer + 2^(BITS − 1).

    That takes two operations, where converting an integer takes four times as long; what was added comes off the sums:
    Σ x · integer = 2^BITS · Σ x · f − 1.5 · 2^BITS · Σ x.
    """
    IN_WORD: tl.constexpr = 32 // BITS
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
        if BITS == 8:
            weight = weight ^ -2139062144  # the sign's bit of each of four: −128 becomes 0
        products = tl.zeros((OUT, WIDE), tl.float32)
        total = tl.zeros((WIDE,), tl.float32)
        for number in tl.static_range(IN_WORD):
            x = tl.load(x_ptr + (first + word) * IN_WORD + number, mask=known, other=0.0).to(tl.float32)
            total += x
            products += x[None, :] * _mantissa(weight, number, BITS)
        products = products * (1 << BITS) - total[None, :] * (3 << (BITS - 1))
        if BITS == 4:
            group = (first + word) // 4
            scales = scale_ptr + output.to(tl.int64)[:, None] * (WORDS // 4) + group[None, :]
            products *= tl.load(scales, mask=there & known[None, :], other=0.0).to(tl.float32)
        sums += products
        weight = following
    y = tl.sum(sums, axis=1)
    if BITS == 8:
        y *= tl.load(scale_ptr + output, mask=output < outputs, other=0.0).to(tl.float32)
    tl.store(y_ptr + output, y.to(y_ptr.dtype.element_ty), mask=output < outputs)


@triton.jit
def _mantissa(word, number: tl.constexpr, BITS: tl.constexpr):
    """1 + u / 2^BITS of one of the numbers in words."""
    SHIFT: tl.constexpr = 23 - BITS - number * BITS
    MASK: tl.constexpr = ((1 << BITS) - 1) << (23 - BITS)
    moved = word << SHIFT if SHIFT >= 0 else word >> -SHIFT
    return ((moved & MASK) | 0x3F800000).to(tl.float32, bitcast=True)


@triton.jit
def _rows(
    x_ptr, words_ptr, scale_ptr, y_ptr, rows, outputs,
    WORDS: tl.constexpr, BITS: tl.constexpr, ROWS: tl.constexpr, OUT: tl.constexpr, WIDE: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """Numbers of one place in their words make a matrix of their own, which meets every 4th or 8th column of x."""
    IN_WORD: tl.constexpr = 32 // BITS
    output = tl.program_id(0) * OUT + tl.arange(0, OUT)
    row, word = tl.arange(0, ROWS), tl.arange(0, WIDE)
    there = (output < outputs)[:, None]
    line = output.to(tl.int64)[:, None]
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    sums = tl.zeros((OUT, ROWS), tl.float32)
    for first in range(0, WORDS, WIDE):
        known = first + word < WORDS
        inside = there & known[None, :]
        weight = tl.load(words_ptr + line * WORDS + first + word[None, :], mask=inside, other=0)
        if BITS == 8:
            weight = weight ^ -2139062144
        else:
            group = (first + word) // 4
            scale = tl.load(scale_ptr + line * (WORDS // 4) + group[None, :], mask=inside, other=0.0).to(tl.float32)
        for number in tl.static_range(IN_WORD):
            place = x_ptr + row[None, :] * (WORDS * IN_WORD) + ((first + word) * IN_WORD + number)[:, None]
            x = tl.load(place, mask=(row < rows)[None, :] & known[:, None], other=0.0)
            part = _mantissa(weight, number, BITS) * (1 << BITS) - (3 << (BITS - 1))
            if BITS == 4:
                part *= scale
            sums = tl.dot(part.to(x.dtype), x, sums, input_precision="ieee")
    if BITS == 8:
        sums *= tl.load(scale_ptr + output, mask=output < outputs, other=0.0).to(tl.float32)[:, None]
    place = y_ptr + row[None, :] * outputs + output[:, None]
    tl.store(place, sums.to(y_ptr.dtype.element_ty), mask=there & (row < rows)[None, :])


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
