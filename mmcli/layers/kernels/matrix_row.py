"""One row by a weight in 4-bit integers through the matrix units of a GPU.

Elsewhere each integer becomes a number and is multiplied by one of x, which takes longer than its half byte takes to be
read: here both are done for many at once. (With 8-bit integers it took as long as `quantised.py` does.)

A program takes 16 outputs, and its warps share their columns. The unit multiplies 16 × 16 numbers by 16 × 8 (PTX ISA,
"mma.m16n8k16"): lane 4g + t gives it numbers of rows g and g + 8, and of column g of the other side, all at the same
places of the sum, which may be any places. So a lane reads 16 bytes of both rows at once, and turns two integers into
two bfloat16 with one operation on 32 bits: 0x4300 | u is 2⁷ + u.

All is written for the lanes of a warp, one number a thread: it runs on NVIDIA's GPUs from Ampere on only.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from mmcli.layers.kernels.launch import overlap

OUT = 16  # outputs of a program
MOST_WARPS = 16
# Readings of a lane that are on their way at a time: with few outputs more warps share a row, each with less of it.
STEPS, FEW_STEPS, MOST_STEPS = 4, 2, 6
MANY_OUTPUTS = 1 << 14
LONG = 64  # readings of a row with which there is enough for all warps


def fits(x: Tensor, stored: Tensor) -> bool:
    """Whether `product` takes them: 4-bit integers and bfloat16 on a GPU, where lanes can read 16 bytes at once."""
    aligned = x.data_ptr() % 16 == 0 and stored.data_ptr() % 16 == 0 and stored.shape[1] % 32 == 0
    return x.is_cuda and x.dtype == torch.bfloat16 and stored.dtype == torch.uint8 and aligned


def product(x: Tensor, stored: Tensor, scale: Tensor) -> Tensor:
    """x [1, K] by a weight [N, K] in 4-bit integers (see `quantised.py`) → [1, N], sums in float32."""
    outputs, width = stored.shape
    y = torch.empty(1, outputs, dtype=x.dtype, device=x.device)
    warps, steps, turns = _shares(outputs, triton.cdiv(width, 64))
    _int4[(triton.cdiv(outputs, OUT),)](
        x.view(torch.int64), stored.view(torch.int32), scale.view(torch.int32), y, outputs,
        QUADS=width // 16, WARPS=warps, STEPS=steps, TURNS=turns, num_warps=warps, **overlap(x.device),
    )  # fmt: skip
    return y


def _shares(outputs: int, readings: int) -> tuple[int, int, int]:
    """Warps of a program, readings of each at a time and how often, for so many readings of a row by four lanes."""
    steps = STEPS if outputs >= MANY_OUTPUTS or readings >= LONG else FEW_STEPS
    warps = min(MOST_WARPS, 1 << (max(1, readings // steps).bit_length() - 1))
    each = triton.cdiv(readings, warps)
    return (warps, each, 1) if each <= MOST_STEPS else (warps, steps, triton.cdiv(each, steps))


@triton.jit
def _int4(
    x_ptr, words_ptr, scale_ptr, y_ptr, outputs,
    QUADS: tl.constexpr, WARPS: tl.constexpr, STEPS: tl.constexpr, TURNS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Four words are the 32 columns that share a scale. Lane t has numbers of x for column t of the other side alone,
    so the product's four first columns are the sums of four groups, which then get their scales."""
    thread = tl.arange(0, WARPS * 32)
    row, lane, warp = thread % 32 // 4, thread % 4, thread // 32
    output = tl.program_id(0) * 16 + tl.arange(0, 8)
    above = tl.minimum(tl.program_id(0) * 16 + row, outputs - 1).to(tl.int64)
    below = tl.minimum(tl.program_id(0) * 16 + 8 + row, outputs - 1).to(tl.int64)
    upper, lower = words_ptr + above * (QUADS * 4), words_ptr + below * (QUADS * 4)
    above, below = scale_ptr + above * (QUADS // 2), scale_ptr + below * (QUADS // 2)
    words = _words(upper, lower, warp * STEPS * 4 + lane, QUADS, STEPS)
    scales = _scales(above, below, warp * STEPS * 2 + lane % 2, QUADS, STEPS)
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    zero = (thread * 0).to(tl.float32)
    sum0 = zero
    sum1 = zero
    for turn in tl.static_range(TURNS):
        following = ()
        next_scales = ()
        if turn + 1 < TURNS:
            first = ((turn + 1) * WARPS + warp) * STEPS
            following = _words(upper, lower, first * 4 + lane, QUADS, STEPS)
            next_scales = _scales(above, below, first * 2 + lane % 2, QUADS, STEPS)
        for s in tl.static_range(STEPS):
            quad = ((turn * WARPS + warp) * STEPS + s) * 4 + lane
            asked = ((row == lane) & (quad < QUADS)).to(tl.int32)
            at = x_ptr + quad.to(tl.int64) * 8
            sums = (zero, zero, zero, zero)
            for word in tl.static_range(4):
                pairs = _eight_in_pairs(at + word * 2, asked)
                sums = _with_int4(sums, words[2 * s][word], words[2 * s + 1][word], pairs)
            scale0, scale1 = _halves(scales[2 * s])
            scale2, scale3 = _halves(scales[2 * s + 1])
            sum0 += sums[0] * scale0 + sums[1] * scale1
            sum1 += sums[2] * scale2 + sums[3] * scale3
        words = following
        scales = next_scales
    kind = y_ptr.dtype.element_ty
    tl.store(y_ptr + output, _over_lanes(sum0, WARPS).to(kind), mask=output < outputs)
    tl.store(y_ptr + output + 8, _over_lanes(sum1, WARPS).to(kind), mask=output + 8 < outputs)


@triton.jit
def _over_lanes(x, WARPS: tl.constexpr):
    """Sums [8] over a row's four lanes and over warps."""
    return tl.sum(tl.sum(x.reshape(WARPS, 8, 4), axis=2), axis=0)


@triton.jit
def _words(upper, lower, first, QUADS: tl.constexpr, STEPS: tl.constexpr):
    """Four words of both rows for each step; behind the end the last ones again, which then meet no x."""
    words = ()
    for s in tl.static_range(STEPS):
        quad = tl.minimum(first + s * 4, QUADS - 1) * 4
        words = words + (_four_words(upper + quad), _four_words(lower + quad))  # type: ignore[assignment]
    return words


@triton.jit
def _scales(above, below, first, QUADS: tl.constexpr, STEPS: tl.constexpr):
    """Scales of two groups of both rows for each step."""
    scales = ()
    for s in tl.static_range(STEPS):
        pair = tl.minimum(first + s * 2, QUADS // 2 - 1)
        scales = scales + (tl.load(above + pair), tl.load(below + pair))  # type: ignore[assignment]
    return scales


@triton.jit
def _four_words(at):
    """Sixteen bytes of what is read once and never written."""
    return tl.inline_asm_elementwise(
        "ld.global.nc.L1::no_allocate.v4.u32 {$0, $1, $2, $3}, [$4];",
        "=r,=r,=r,=r,l",
        [at],
        dtype=(tl.int32, tl.int32, tl.int32, tl.int32),
        is_pure=False,
        pack=1,
    )


@triton.jit
def _eight_in_pairs(at, asked):
    """Eight bfloat16 as the pairs (0, 4), (1, 5), (2, 6) and (3, 7), as `_with_int4` finds those of a word."""
    return tl.inline_asm_elementwise(
        """{
        .reg .pred p;
        .reg .b32 a, b, c, d;
        setp.ne.s32 p, $5, 0;
        mov.b32 a, 0;
        mov.b32 b, 0;
        mov.b32 c, 0;
        mov.b32 d, 0;
        @p ld.global.v4.u32 {a, b, c, d}, [$4];
        prmt.b32 $0, a, c, 0x5410;
        prmt.b32 $1, a, c, 0x7632;
        prmt.b32 $2, b, d, 0x5410;
        prmt.b32 $3, b, d, 0x7632;
        }""",
        "=r,=r,=r,=r,l,r",
        [at, asked],
        dtype=(tl.int32, tl.int32, tl.int32, tl.int32),
        is_pure=False,
        pack=1,
    )


@triton.jit
def _halves(word):
    """Two float16 as float32."""
    return tl.inline_asm_elementwise(
        """{
        .reg .b16 low, high;
        mov.b32 {low, high}, $2;
        cvt.f32.f16 $0, low;
        cvt.f32.f16 $1, high;
        }""",
        "=f,=f,r",
        [word],
        dtype=(tl.float32, tl.float32),
        is_pure=True,
        pack=1,
    )


@triton.jit
def _with_int4(sums, upper, lower, pairs):
    """The sums and the products of a word, eight 4-bit integers, of both rows: 2⁷ + u, less 2⁷ + 8."""
    return tl.inline_asm_elementwise(
        """{
        .reg .b32 a, b, c, d, u, l, one, less;
        .reg .f32 e, f, g, h;
        mov.b32 one, 0x3F803F80;
        mov.b32 less, 0xC308C308;
        shr.u32 u, $4, 4;
        shr.u32 l, $5, 4;
        lop3.b32 a, $4, 0x000F000F, 0x43004300, 0xEA;
        lop3.b32 b, $5, 0x000F000F, 0x43004300, 0xEA;
        lop3.b32 c, u, 0x000F000F, 0x43004300, 0xEA;
        lop3.b32 d, l, 0x000F000F, 0x43004300, 0xEA;
        fma.rn.bf16x2 a, a, one, less;
        fma.rn.bf16x2 b, b, one, less;
        fma.rn.bf16x2 c, c, one, less;
        fma.rn.bf16x2 d, d, one, less;
        mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32
            {e, f, g, h}, {a, b, c, d}, {$6, $7}, {$10, $11, $12, $13};
        shr.u32 u, $4, 8;
        shr.u32 l, $5, 8;
        lop3.b32 a, u, 0x000F000F, 0x43004300, 0xEA;
        lop3.b32 b, l, 0x000F000F, 0x43004300, 0xEA;
        shr.u32 u, $4, 12;
        shr.u32 l, $5, 12;
        lop3.b32 c, u, 0x000F000F, 0x43004300, 0xEA;
        lop3.b32 d, l, 0x000F000F, 0x43004300, 0xEA;
        fma.rn.bf16x2 a, a, one, less;
        fma.rn.bf16x2 b, b, one, less;
        fma.rn.bf16x2 c, c, one, less;
        fma.rn.bf16x2 d, d, one, less;
        mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32
            {$0, $1, $2, $3}, {a, b, c, d}, {$8, $9}, {e, f, g, h};
        }""",
        "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f",
        [upper, lower, pairs[0], pairs[1], pairs[2], pairs[3], sums[0], sums[1], sums[2], sums[3]],
        dtype=(tl.float32, tl.float32, tl.float32, tl.float32),
        is_pure=True,
        pack=1,
    )
