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


def _load(instruction: str) -> tl.constexpr:
    """Instructions that load four words from $4, or zeros where $5 is 0."""
    return tl.constexpr(f"""{{
        .reg .pred p;
        .reg .b32 a, b, c, d;
        setp.ne.s32 p, $5, 0;
        mov.b32 a, 0;
        mov.b32 b, 0;
        mov.b32 c, 0;
        mov.b32 d, 0;
        @p {instruction} {{a, b, c, d}}, [$4];
        mov.b32 $0, a;
        mov.b32 $1, b;
        mov.b32 $2, c;
        mov.b32 $3, d;
        }}""")


LOAD = _load("ld.global.v4.u32")
LOAD_ONCE = _load("ld.global.nc.L1::no_allocate.v4.u32")


@triton.jit
def four_words(at, there, INSTRUCTIONS: tl.constexpr = LOAD_ONCE):
    """Sixteen bytes of what is read once and never written, or zeros."""
    return tl.inline_asm_elementwise(
        INSTRUCTIONS,
        "=r,=r,=r,=r,l,r",
        [at, there],
        dtype=(tl.int32, tl.int32, tl.int32, tl.int32),
        is_pure=False,
        pack=1,
    )


@triton.jit
def eight_numbers(at, there):
    """Eight bfloat16 as four words, or zeros."""
    return four_words(at, there, LOAD)


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
    then those of odd ones.
    """
    magic = tl.where(high != 0, 12582912.0 + 128.0, 12582912.0)  # 1.5 · 2²³: v stands in the lower bits of the sum
    a, b = _two_whole(words[0], times, magic)
    c, d = _two_whole(words[1], times, magic)
    e, f = _two_whole(words[2], times, magic)
    g, h = _two_whole(words[3], times, magic)
    if EVEN_FIRST:
        return _four_bytes(a, c, e, g, high), _four_bytes(b, d, f, h, high)
    return _four_bytes(a, b, c, d, high), _four_bytes(e, f, g, h, high)


@triton.jit
def _two_whole(word, times, magic):
    """The two bfloat16 of a word, multiplied by `times` and rounded as `magic` is added to them."""
    first = tl.fma((word << 16).to(tl.float32, bitcast=True), times, magic)
    second = tl.fma((word & -0x10000).to(tl.float32, bitcast=True), times, magic)
    return first.to(tl.int32, bitcast=True), second.to(tl.int32, bitcast=True)


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
    """16 · the sum of products of a group's 32 integers, in the upper and in the lower row, as float32."""
    zero = tl.zeros_like(x[0])
    sums = (zero, zero, zero, zero)
    for i in tl.static_range(2):
        a, b, c, d = upper[2 * i], lower[2 * i], upper[2 * i + 1], lower[2 * i + 1]
        sums = _product(sums, _int4(a << 4), _int4(b << 4), _int4(c << 4), _int4(d << 4), x[4 * i], x[4 * i + 1])
        sums = _product(sums, _int4(a), _int4(b), _int4(c), _int4(d), x[4 * i + 2], x[4 * i + 3])
    return (sums[0] * 256 + sums[1]).to(tl.float32), (sums[2] * 256 + sums[3]).to(tl.float32)


@triton.jit
def _int4(word):
    """16 times what the 4-bit integers mean that are the upper halves of a word's bytes, as 8-bit ones.

    They are 8 more than what they mean: all but their highest bit stands as it is.
    """
    return tl.inline_asm_elementwise(
        "lop3.b32 $0, $1, 0xF0F0F0F0, 0x80808080, 0x6A;", "=r,r", [word], dtype=tl.int32, is_pure=True, pack=1
    )


@triton.jit
def with_int8(sums, upper, lower, x):
    """Four sums, of both parts in the upper row and in the lower one, and what 32 8-bit integers of each row add."""
    for i in tl.static_range(4):
        a, b, c, d = upper[2 * i], lower[2 * i], upper[2 * i + 1], lower[2 * i + 1]
        sums = _product(sums, a, b, c, d, x[2 * i], x[2 * i + 1])
    return sums


@triton.jit
def _product(sums, a, b, c, d, x0, x1):
    """Four sums and what the matrix unit adds to them: of words a and c of the upper row, b and d of the lower one."""
    return tl.inline_asm_elementwise(
        """mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32
            {$0, $1, $2, $3}, {$4, $5, $6, $7}, {$8, $9}, {$10, $11, $12, $13};""",
        "=r,=r,=r,=r,r,r,r,r,r,r,r,r,r,r",
        [a, b, c, d, x0, x1, sums[0], sums[1], sums[2], sums[3]],
        dtype=(tl.int32, tl.int32, tl.int32, tl.int32),
        is_pure=True,
        pack=1,
    )
