"""Products of few rows with weights in 8- or 4-bit integers, which are multiplied out in registers.

Forms of the integers and their scales are those of `mmcli/hub/quantized.py`: int8 [N, K] with a scale a row, or uint8
[N, K / 2], two 4-bit integers a byte, with a scale for each 32 columns. They are read as words of 32 bits and become
numbers by their bits (`functions.py`), since conversions run at a quarter of the rate of other operations.
"""

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from mmcli.hub.quantized import GROUP, multiplied
from mmcli.layers.kernels import gated as gates
from mmcli.layers.kernels import matrix_row
from mmcli.layers.kernels.functions import floats_of_int8, four_floats, mantissas_of_int4, numbers_of_int4
from mmcli.layers.kernels.launch import interpreted, overlap
from mmcli.layers.kernels.split_k import added_up

# Of a single row: outputs of a program, words (of 4 bytes) of each that it reads at a time.
TILE_INT8 = (4, 1024)
MANY_TILE_INT8 = (8, 512)  # where there are many outputs
TILE_INT4 = (4, 256)
MANY_OUTPUTS = 1 << 14
# Of several rows: outputs of a program, bytes of each at a time, warps, tiles on their way; and about how many programs
# there should be: where there are fewer outputs, several share their columns.
ROWS_INT8 = (32, 256, 4, 4, 512)
ROWS_INT4 = (64, 128, 4, 3, 256)
OUT_TILE = 4096  # numbers that a program multiplies out


def fits(stored: Tensor) -> bool:
    """Whether `product` takes such a weight."""
    return stored.shape[1] * (2 if stored.dtype == torch.uint8 else 1) % GROUP == 0


def product(x: Tensor, stored: Tensor, scale: Tensor) -> Tensor:
    """What `plain` computes: x [R, K] and a weight [N, K] in integers → [R, N], sums in float32."""
    sums = parts(x, stored, scale)
    return sums[0] if len(sums) == 1 else added_up(sums, x.dtype)


def parts(x: Tensor, stored: Tensor, scale: Tensor) -> Tensor:
    """What sums up to `product`: [S, R, N], in float32 if S > 1."""
    x = x.contiguous()
    if len(x) > 1:
        return _rows(x, stored, scale)
    return matrix_row.parts(x, stored, scale) if matrix_row.fits(x, stored) else _one_row(x, stored, scale)[None]


def gated(x: Tensor, stored: Tensor, scale: Tensor, activation: str) -> Tensor:
    """`gated.gated` of `product`, whose weight has the gates in front: x [R, K] → [R, N / 2]."""
    x = x.contiguous()
    if matrix_row.fits_whole(x, stored):
        return matrix_row.gated(x, stored, scale, activation)
    return gates.gated(product(x, stored, scale), activation)


def _one_row(x: Tensor, stored: Tensor, scale: Tensor) -> Tensor:
    words, bits = stored.view(torch.int32), _by_bits(x)
    (outputs, count), narrow = words.shape, stored.dtype == torch.uint8
    out, wide = TILE_INT4 if narrow else MANY_TILE_INT8 if outputs >= MANY_OUTPUTS else TILE_INT8
    wide, y = min(wide, triton.next_power_of_2(count)), torch.empty(1, outputs, dtype=x.dtype, device=x.device)
    (_one_row_int4 if narrow else _one_row_int8)[(triton.cdiv(outputs, out),)](
        x.view(torch.int64) if bits else x, words, scale, y, outputs,
        WORDS=count, OUT=out, WIDE=wide, BITS=bits, num_warps=4, **overlap(x.device),
    )  # fmt: skip
    return y


def _rows(x: Tensor, stored: Tensor, scale: Tensor) -> Tensor:
    rows, (outputs, width), bits = len(x), stored.shape, _by_bits(x)
    narrow = stored.dtype == torch.uint8
    out, wide, warps, stages, programs = ROWS_INT4 if narrow else ROWS_INT8
    wide = min(wide, max(GROUP // 2, triton.next_power_of_2(width)))
    tiles = triton.cdiv(width, wide)
    shares = min(tiles, triton.cdiv(programs, triton.cdiv(outputs, out)))
    each = triton.cdiv(tiles, shares)
    shares = triton.cdiv(tiles, each)
    kind = x.dtype if shares == 1 else torch.float32
    sums = torch.empty(shares, rows, outputs, dtype=kind, device=x.device)
    (_rows_int4 if narrow else _rows_int8)[(triton.cdiv(outputs, out), shares)](
        x.view(torch.int32) if bits and narrow else x, stored, scale, sums, rows, outputs, each,
        WIDTH=width, ROWS=max(16, triton.next_power_of_2(rows)), OUT=out, WIDE=wide, BITS=bits,
        num_warps=warps, num_stages=stages if bits else 1, **overlap(x.device),
    )  # fmt: skip
    return sums


def _by_bits(x: Tensor) -> bool:
    """Whether integers become numbers by their bits, which is written for bfloat16 in a GPU's own instructions."""
    return x.dtype == torch.bfloat16 and not interpreted()


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
    x_ptr, words_ptr, scale_ptr, y_ptr, outputs,
    WORDS: tl.constexpr, OUT: tl.constexpr, WIDE: tl.constexpr, BITS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """x is read in the shape of the weights' tile: so each thread has what it multiplies, and none waits for others."""
    output = tl.program_id(0) * OUT + tl.arange(0, OUT)
    word = tl.broadcast_to(tl.arange(0, WIDE)[None, :], (OUT, WIDE))
    tile = words_ptr + output.to(tl.int64)[:, None] * WORDS + word
    there = (output < outputs)[:, None]
    # Read a tile ahead: the first one while the kernel before this one still computes x.
    weight = tl.load(tile, mask=there & (word < WORDS), other=0, eviction_policy="evict_first")
    scale = tl.load(scale_ptr + output, mask=output < outputs, other=0.0)
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    sums = tl.zeros((OUT, WIDE), tl.float32)
    for first in range(0, WORDS, WIDE):
        ahead = there & (first + WIDE + word < WORDS)
        following = tl.load(tile + first + WIDE, mask=ahead, other=0, eviction_policy="evict_first")
        x0, x1, x2, x3 = four_floats(x_ptr, first + word, first + word < WORDS, BITS)
        w0, w1, w2, w3 = floats_of_int8(weight, BITS)
        sums += x0 * w0
        sums += x1 * w1
        sums += x2 * w2
        sums += x3 * w3
        weight = following
    y = tl.sum(sums, axis=1) * scale
    tl.store(y_ptr + output, y.to(y_ptr.dtype.element_ty), mask=output < outputs)


@triton.jit
def _one_row_int4(
    x_ptr, words_ptr, scale_ptr, y_ptr, outputs,
    WORDS: tl.constexpr, OUT: tl.constexpr, WIDE: tl.constexpr, BITS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """A word's eight integers are put into mantissas: f = 1 + u / 16, where u = integer + 8.

    What is added comes off the sums: Σ x · integer = 16 Σ x · f − 24 Σ x. Neighbouring threads take neighbouring words,
    as if these were not together in memory: of x, which is four times as long, they then read what is together.
    """
    output = tl.program_id(0) * OUT + tl.arange(0, OUT)
    word = tl.max_contiguous(tl.broadcast_to(tl.arange(0, WIDE)[None, :], (OUT, WIDE)), (1, 1))
    tile = words_ptr + output.to(tl.int64)[:, None] * WORDS + word
    scales = scale_ptr + output.to(tl.int64)[:, None] * (WORDS // 4) + word // 4  # 32 numbers are four words
    there = (output < outputs)[:, None]
    # Read a tile ahead: the first one while the kernel before this one still computes x.
    known = there & (word < WORDS)
    weight = tl.load(tile, mask=known, other=0, eviction_policy="evict_first")
    scale = tl.load(scales, mask=known, other=0.0, eviction_policy="evict_first")
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    sums = tl.zeros((OUT, WIDE), tl.float32)
    for first in range(0, WORDS, WIDE):
        ahead = there & (first + WIDE + word < WORDS)
        following = tl.load(tile + first + WIDE, mask=ahead, other=0, eviction_policy="evict_first")
        next_scale = tl.load(scales + (first + WIDE) // 4, mask=ahead, other=0.0, eviction_policy="evict_first")
        seen = first + word < WORDS
        x0, x1, x2, x3 = four_floats(x_ptr, (first + word) * 2, seen, BITS)
        x4, x5, x6, x7 = four_floats(x_ptr, (first + word) * 2 + 1, seen, BITS)
        w0, w1, w2, w3, w4, w5, w6, w7 = mantissas_of_int4(weight, BITS)
        products = x0 * w0
        products += x1 * w1
        products += x2 * w2
        products += x3 * w3
        products += x4 * w4
        products += x5 * w5
        products += x6 * w6
        products += x7 * w7
        total = ((x0 + x1) + (x2 + x3)) + ((x4 + x5) + (x6 + x7))
        sums += (products * 16 - total * 24) * scale.to(tl.float32)
        weight = following
        scale = next_scale
    y = tl.sum(sums, axis=1)
    tl.store(y_ptr + output, y.to(y_ptr.dtype.element_ty), mask=output < outputs)


@triton.jit
def _rows_int8(
    x_ptr, stored_ptr, scale_ptr, y_ptr, rows, outputs, each,
    WIDTH: tl.constexpr, ROWS: tl.constexpr, OUT: tl.constexpr, WIDE: tl.constexpr,
    BITS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    output = tl.program_id(0) * OUT + tl.arange(0, OUT)
    row, column = tl.arange(0, ROWS), tl.arange(0, WIDE)
    there, asked = (output < outputs)[:, None], (row < rows)[None, :]
    tile = stored_ptr + output.to(tl.int64)[:, None] * WIDTH + column[None, :]
    xs = x_ptr + row[None, :] * WIDTH + column[:, None]
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    sums = tl.zeros((OUT, ROWS), tl.float32)
    begin = tl.program_id(1) * each * WIDE
    for first in range(begin, tl.minimum(begin + each * WIDE, WIDTH), WIDE):
        inside = first + column < WIDTH
        x = tl.load(xs + first, mask=asked & inside[:, None], other=0.0)
        weight = tl.load(tile + first, mask=there & inside[None, :], other=0)
        sums = tl.dot(weight.to(x.dtype), x, sums, input_precision="ieee")
    sums *= tl.load(scale_ptr + output, mask=output < outputs, other=0.0)[:, None]
    place = y_ptr + tl.program_id(1) * rows * outputs + row[None, :] * outputs + output[:, None]
    tl.store(place, sums.to(y_ptr.dtype.element_ty), mask=there & asked)


@triton.jit
def _rows_int4(
    x_ptr, stored_ptr, scale_ptr, y_ptr, rows, outputs, each,
    WIDTH: tl.constexpr, ROWS: tl.constexpr, OUT: tl.constexpr, WIDE: tl.constexpr,
    BITS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Numbers of even columns stand in the lower halves of bytes: both halves have a product of their own."""
    HALF: tl.constexpr = 16  # bytes that share a scale
    output = tl.program_id(0) * OUT + tl.arange(0, OUT)
    row, byte = tl.arange(0, ROWS), tl.arange(0, WIDE)
    group = tl.arange(0, WIDE // HALF)
    there, asked = (output < outputs)[:, None], (row < rows)[None, :]
    tile = stored_ptr + output.to(tl.int64)[:, None] * WIDTH + byte[None, :]
    scales = scale_ptr + output.to(tl.int64)[:, None] * (WIDTH // HALF) + group[None, :]
    pairs = row[None, :] * WIDTH + byte[:, None]
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    sums = tl.zeros((OUT, ROWS), tl.float32)
    begin = tl.program_id(1) * each * WIDE
    for first in range(begin, tl.minimum(begin + each * WIDE, WIDTH), WIDE):
        inside = first + byte < WIDTH
        seen = asked & inside[:, None]
        if BITS:
            pair = tl.load(x_ptr + pairs + first, mask=seen, other=0)
            even = (pair & 0xFFFF).to(tl.int16).to(tl.bfloat16, bitcast=True)
            odd = ((pair >> 16) & 0xFFFF).to(tl.int16).to(tl.bfloat16, bitcast=True)
        else:
            even = tl.load(x_ptr + (pairs + first) * 2, mask=seen, other=0.0)
            odd = tl.load(x_ptr + (pairs + first) * 2 + 1, mask=seen, other=0.0)
        weight = tl.load(tile + first, mask=there & inside[None, :], other=0)
        known = there & (first // HALF + group < WIDTH // HALF)[None, :]
        scale = tl.load(scales + first // HALF, mask=known, other=0.0).to(even.dtype)
        wide = tl.broadcast_to(scale[:, :, None], (OUT, WIDE // HALF, HALF)).reshape(OUT, WIDE)
        low, high = numbers_of_int4(weight, even.dtype, BITS)
        sums = tl.dot(low * wide, even, sums, input_precision="ieee")
        sums = tl.dot(high * wide, odd, sums, input_precision="ieee")
    place = y_ptr + tl.program_id(1) * rows * outputs + row[None, :] * outputs + output[:, None]
    tl.store(place, sums.to(y_ptr.dtype.element_ty), mask=there & asked)


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
