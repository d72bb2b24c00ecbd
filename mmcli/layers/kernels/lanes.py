"""Instructions of single lanes of a warp, for products of integers in a GPU's matrix units (`matrix_row.py`).

The unit multiplies 16 × 32 8-bit integers by 32 × 8 (PTX ISA, "mma.m16n8k32"): lane 4g + t gives it those of rows g and
g + 8 of the left matrix, and of column g of the right one, all at the same places of the sum, which may be any.
So of a weight, the left matrix, a lane reads 16 bytes of both rows at once, and they are multiplied as they were read;
of 4-bit integers one or two operations take four out of a word.

The right matrix is x as two 8-bit integers a number, v = 256 · high + low (`two_parts`). Column g holds high integers
if g is even and low ones if it is odd, for a fourth of the places, and zeros elsewhere: for those of lane g / 2 with
4-bit weights, so that columns are sums of groups that have scales of their own; with 8-bit ones for those of the
(g / 2)th product of a reading, so that every lane makes integers of an equal share of x. Columns 2t and 2t + 1 of the
result are lane 4g + t's: 256 times the one and the other are a sum of products.

An element of a tensor is a lane's. They run on NVIDIA's GPUs from Ampere on.
"""

import triton
import triton.language as tl


@triton.jit
def four_words(at, there):
    """Sixteen bytes of what is read once and never written, or zeros."""
    return tl.inline_asm_elementwise(
        """{
        .reg .pred p;
        .reg .b32 a, b, c, d;
        setp.ne.s32 p, $5, 0;
        mov.b32 a, 0;
        mov.b32 b, 0;
        mov.b32 c, 0;
        mov.b32 d, 0;
        @p ld.global.nc.L1::no_allocate.v4.u32 {a, b, c, d}, [$4];
        mov.b32 $0, a;
        mov.b32 $1, b;
        mov.b32 $2, c;
        mov.b32 $3, d;
        }""",
        "=r,=r,=r,=r,l,r",
        [at, there],
        dtype=(tl.int32, tl.int32, tl.int32, tl.int32),
        is_pure=False,
        pack=1,
    )


@triton.jit
def eight_numbers(at, there):
    """Eight bfloat16 as four words, or zeros."""
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
        mov.b32 $0, a;
        mov.b32 $1, b;
        mov.b32 $2, c;
        mov.b32 $3, d;
        }""",
        "=r,=r,=r,=r,l,r",
        [at, there],
        dtype=(tl.int32, tl.int32, tl.int32, tl.int32),
        is_pure=False,
        pack=1,
    )


@triton.jit
def largest(words):
    """The bits of the largest of a lane's eight bfloat16, without their signs, as float32: in order as integers are."""
    return tl.inline_asm_elementwise(
        """{
        .reg .b32 a, b, c, d;
        and.b32 a, $1, 0x7FFF7FFF;
        and.b32 b, $2, 0x7FFF7FFF;
        and.b32 c, $3, 0x7FFF7FFF;
        and.b32 d, $4, 0x7FFF7FFF;
        max.NaN.bf16x2 a, a, b;
        max.NaN.bf16x2 c, c, d;
        max.NaN.bf16x2 a, a, c;
        shl.b32 b, a, 16;
        and.b32 a, a, 0xFFFF0000;
        max.u32 $0, a, b;
        }""",
        "=r,r,r,r,r",
        [words[0], words[1], words[2], words[3]],
        dtype=tl.int32,
        is_pure=True,
        pack=1,
    )


@triton.jit
def largest_of_warp(bits):
    """The largest of its lanes' numbers, none of which is negative."""
    return tl.inline_asm_elementwise(
        "redux.sync.max.u32 $0, $1, 0xffffffff;", "=r,r", [bits], dtype=tl.int32, is_pure=False, pack=1
    )


@triton.jit
def two_parts(words, times, high, EVEN_FIRST: tl.constexpr):
    """One of the two 8-bit parts of eight bfloat16 that are multiplied by `times`, as two words.

    v, the whole number next to it, between -32640 and 32639, is 256 · the high part + the low one, which is between
    -128 and 127. `high` tells which is asked for. The words have the numbers as they come, or those of even places and
    then those of odd ones. (Added to 1.5 · 2²³, v stands in the lower bits of a float32.)
    """
    v = tl.inline_asm_elementwise(
        """{
        .reg .f32 f, magic;
        .reg .b32 t;
        .reg .pred p;
        setp.ne.s32 p, $13, 0;
        selp.f32 magic, 0f4B400080, 0f4B400000, p;
        shl.b32 t, $8, 16;
        mov.b32 f, t;
        fma.rn.f32 f, f, $12, magic;
        mov.b32 $0, f;
        and.b32 t, $8, 0xFFFF0000;
        mov.b32 f, t;
        fma.rn.f32 f, f, $12, magic;
        mov.b32 $1, f;
        shl.b32 t, $9, 16;
        mov.b32 f, t;
        fma.rn.f32 f, f, $12, magic;
        mov.b32 $2, f;
        and.b32 t, $9, 0xFFFF0000;
        mov.b32 f, t;
        fma.rn.f32 f, f, $12, magic;
        mov.b32 $3, f;
        shl.b32 t, $10, 16;
        mov.b32 f, t;
        fma.rn.f32 f, f, $12, magic;
        mov.b32 $4, f;
        and.b32 t, $10, 0xFFFF0000;
        mov.b32 f, t;
        fma.rn.f32 f, f, $12, magic;
        mov.b32 $5, f;
        shl.b32 t, $11, 16;
        mov.b32 f, t;
        fma.rn.f32 f, f, $12, magic;
        mov.b32 $6, f;
        and.b32 t, $11, 0xFFFF0000;
        mov.b32 f, t;
        fma.rn.f32 f, f, $12, magic;
        mov.b32 $7, f;
        }""",
        "=r,=r,=r,=r,=r,=r,=r,=r,r,r,r,r,f,r",
        [words[0], words[1], words[2], words[3], times, high],
        dtype=(tl.int32, tl.int32, tl.int32, tl.int32, tl.int32, tl.int32, tl.int32, tl.int32),
        is_pure=True,
        pack=1,
    )
    if EVEN_FIRST:
        return _four_bytes(v[0], v[2], v[4], v[6], high), _four_bytes(v[1], v[3], v[5], v[7], high)
    return _four_bytes(v[0], v[1], v[2], v[3], high), _four_bytes(v[4], v[5], v[6], v[7], high)


@triton.jit
def _four_bytes(a, b, c, d, high):
    """The lowest bytes of four words, or those above them, as one word."""
    return tl.inline_asm_elementwise(
        """{
        .reg .pred p;
        .reg .b32 which, low, upper;
        setp.ne.s32 p, $5, 0;
        selp.b32 which, 0x51, 0x40, p;
        prmt.b32 low, $1, $2, which;
        prmt.b32 upper, $3, $4, which;
        prmt.b32 $0, low, upper, 0x5410;
        }""",
        "=r,r,r,r,r,r",
        [a, b, c, d, high],
        dtype=tl.int32,
        is_pure=True,
        pack=1,
    )


@triton.jit
def shuffled(value, lane):
    """What another lane of the warp has."""
    return tl.inline_asm_elementwise(
        "shfl.sync.idx.b32 $0, $1, $2, 31, 0xffffffff;", "=r,r,r", [value, lane], dtype=tl.int32, is_pure=False, pack=1
    )


@triton.jit
def with_int4(upper, lower, x):
    """16 · the sum of products of a group's 32 integers, in the upper and in the lower row, as float32.

    A 4-bit integer, 8 more than what it means, becomes 16 times what it means as an 8-bit one: in the upper half of a
    byte it stands as it is, but for its highest bit.
    """
    return tl.inline_asm_elementwise(
        """{
        .reg .b32 a, b, c, d, e, f, g, h, zero;
        mov.b32 zero, 0;
        shl.b32 a, $2, 4;
        shl.b32 b, $6, 4;
        shl.b32 c, $3, 4;
        shl.b32 d, $7, 4;
        lop3.b32 a, a, 0xF0F0F0F0, 0x80808080, 0x6A;
        lop3.b32 b, b, 0xF0F0F0F0, 0x80808080, 0x6A;
        lop3.b32 c, c, 0xF0F0F0F0, 0x80808080, 0x6A;
        lop3.b32 d, d, 0xF0F0F0F0, 0x80808080, 0x6A;
        mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32
            {e, f, g, h}, {a, b, c, d}, {$10, $11}, {zero, zero, zero, zero};
        lop3.b32 a, $2, 0xF0F0F0F0, 0x80808080, 0x6A;
        lop3.b32 b, $6, 0xF0F0F0F0, 0x80808080, 0x6A;
        lop3.b32 c, $3, 0xF0F0F0F0, 0x80808080, 0x6A;
        lop3.b32 d, $7, 0xF0F0F0F0, 0x80808080, 0x6A;
        mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32
            {e, f, g, h}, {a, b, c, d}, {$12, $13}, {e, f, g, h};
        shl.b32 a, $4, 4;
        shl.b32 b, $8, 4;
        shl.b32 c, $5, 4;
        shl.b32 d, $9, 4;
        lop3.b32 a, a, 0xF0F0F0F0, 0x80808080, 0x6A;
        lop3.b32 b, b, 0xF0F0F0F0, 0x80808080, 0x6A;
        lop3.b32 c, c, 0xF0F0F0F0, 0x80808080, 0x6A;
        lop3.b32 d, d, 0xF0F0F0F0, 0x80808080, 0x6A;
        mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32
            {e, f, g, h}, {a, b, c, d}, {$14, $15}, {e, f, g, h};
        lop3.b32 a, $4, 0xF0F0F0F0, 0x80808080, 0x6A;
        lop3.b32 b, $8, 0xF0F0F0F0, 0x80808080, 0x6A;
        lop3.b32 c, $5, 0xF0F0F0F0, 0x80808080, 0x6A;
        lop3.b32 d, $9, 0xF0F0F0F0, 0x80808080, 0x6A;
        mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32
            {e, f, g, h}, {a, b, c, d}, {$16, $17}, {e, f, g, h};
        mad.lo.s32 e, e, 256, f;
        mad.lo.s32 g, g, 256, h;
        cvt.rn.f32.s32 $0, e;
        cvt.rn.f32.s32 $1, g;
        }""",
        "=f,=f,r,r,r,r,r,r,r,r,r,r,r,r,r,r,r,r",
        [
            upper[0],
            upper[1],
            upper[2],
            upper[3],
            lower[0],
            lower[1],
            lower[2],
            lower[3],
            x[0],
            x[1],
            x[2],
            x[3],
            x[4],
            x[5],
            x[6],
            x[7],
        ],
        dtype=(tl.float32, tl.float32),
        is_pure=True,
        pack=1,
    )


@triton.jit
def with_int8(sums, upper, lower, x):
    """Four sums, of both parts in the upper row and in the lower one, and what 32 8-bit integers of each row add."""
    return tl.inline_asm_elementwise(
        """{
        .reg .b32 e, f, g, h;
        mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32
            {e, f, g, h}, {$4, $12, $5, $13}, {$20, $21}, {$28, $29, $30, $31};
        mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32
            {e, f, g, h}, {$6, $14, $7, $15}, {$22, $23}, {e, f, g, h};
        mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32
            {e, f, g, h}, {$8, $16, $9, $17}, {$24, $25}, {e, f, g, h};
        mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32
            {$0, $1, $2, $3}, {$10, $18, $11, $19}, {$26, $27}, {e, f, g, h};
        }""",
        "=r,=r,=r,=r,r,r,r,r,r,r,r,r,r,r,r,r,r,r,r,r,r,r,r,r,r,r,r,r,r,r,r,r",
        [
            upper[0], upper[1], upper[2], upper[3], upper[4], upper[5], upper[6], upper[7],
            lower[0], lower[1], lower[2], lower[3], lower[4], lower[5], lower[6], lower[7],
            x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7], sums[0], sums[1], sums[2], sums[3],
        ],
        dtype=(tl.int32, tl.int32, tl.int32, tl.int32),
        is_pure=True,
        pack=1,
    )  # fmt: skip
