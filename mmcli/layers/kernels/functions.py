"""What kernels are made of: functions of numbers in float32, and numbers of few bits put into wider ones.

For the latter there is a way in a GPU's own instructions (`BITS`), which puts bits where a floating-point number has
its mantissa: 0x4B000000 | u is 2²³ + u in float32, and 0x4300 | u is 2⁷ + u in bfloat16. The other way, which says the
same, is for other types and for Triton's interpreter.
"""

import triton
import triton.language as tl


@triton.jit
def gelu(x):
    """x · Φ(x) in the tanh form, whose tanh is written as a sigmoid (Hendrycks & Gimpel, arXiv:1606.08415)."""
    return x / (1.0 + tl.exp(-1.5957691216057308 * (x + 0.044715 * x * x * x)))


@triton.jit
def gated_by(gate, up, ACTIVATION: tl.constexpr):
    """activation(gate) · up, by the tanh form of GELU or by SiLU."""
    gate = gelu(gate) if ACTIVATION == "gelu" else gate / (1.0 + tl.exp(-gate))
    return gate * up


@triton.jit
def exact_gelu(x):
    """x · Φ(x)."""
    return 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))


@triton.jit
def activated(x, ACTIVATION: tl.constexpr):
    """What `matvec.ACTIVATIONS` does to a product; "" is nothing."""
    if ACTIVATION == "gelu":
        x = exact_gelu(x)
    if ACTIVATION == "gelu_tanh":
        x = gelu(x)
    if ACTIVATION == "relu2":
        x = tl.maximum(x, 0.0)
        x = x * x
    return x


@triton.jit
def tanh(x):
    """Through one exponential, which may become infinite."""
    return 1.0 - 2.0 / (tl.exp(2.0 * x) + 1.0)


@triton.jit
def rms_normed(x, width, epsilon):
    """The RMSNorm of a vector of `width` numbers, without a scale; what is behind them is 0 and stays so."""
    return x * (1.0 / tl.sqrt(tl.sum(x * x, axis=0) / width + epsilon))


@triton.jit
def rms_normed_rows(x, width, epsilon):
    """The same of every row of x [M, N]."""
    return x * (1.0 / tl.sqrt(tl.sum(x * x, axis=1) / width + epsilon))[:, None]


@triton.jit
def layer_normed(x, there, width, epsilon):
    """The LayerNorm of a vector of `width` numbers, without scale and shift; `there` tells them from what is behind."""
    x = tl.where(there, x - tl.sum(x, axis=0) / width, 0.0)
    return x * (1.0 / tl.sqrt(tl.sum(x * x, axis=0) / width + epsilon))


@triton.jit
def four_floats(x_ptr, at, seen, BITS: tl.constexpr):
    """x[4 · at], …, x[4 · at + 3] as float32, of bfloat16 that is read as int64 where `BITS`; 0 where not `seen`."""
    if BITS:
        return tl.inline_asm_elementwise(
            """{
            .reg .b32 low, high;
            mov.b64 {low, high}, $4;
            shl.b32 $0, low, 16;
            and.b32 $1, low, 0xFFFF0000;
            shl.b32 $2, high, 16;
            and.b32 $3, high, 0xFFFF0000;
            }""",
            "=r,=r,=r,=r,l",
            [tl.load(x_ptr + at, mask=seen, other=0)],
            dtype=(tl.float32, tl.float32, tl.float32, tl.float32),
            is_pure=True,
            pack=1,
        )
    x0 = tl.load(x_ptr + at * 4, mask=seen, other=0.0).to(tl.float32)
    x1 = tl.load(x_ptr + at * 4 + 1, mask=seen, other=0.0).to(tl.float32)
    x2 = tl.load(x_ptr + at * 4 + 2, mask=seen, other=0.0).to(tl.float32)
    x3 = tl.load(x_ptr + at * 4 + 3, mask=seen, other=0.0).to(tl.float32)
    return x0, x1, x2, x3


@triton.jit
def floats_of_int8(word, BITS: tl.constexpr):
    """The four int8 of words of 32 bits."""
    if BITS:
        return tl.inline_asm_elementwise(
            """{
            .reg .b32 u;
            xor.b32 u, $4, 0x80808080;
            prmt.b32 $0, u, 0x4B000000, 0x7650;
            prmt.b32 $1, u, 0x4B000000, 0x7651;
            prmt.b32 $2, u, 0x4B000000, 0x7652;
            prmt.b32 $3, u, 0x4B000000, 0x7653;
            sub.f32 $0, $0, 0f4B000080;
            sub.f32 $1, $1, 0f4B000080;
            sub.f32 $2, $2, 0f4B000080;
            sub.f32 $3, $3, 0f4B000080;
            }""",
            "=r,=r,=r,=r,r",
            [word],
            dtype=(tl.float32, tl.float32, tl.float32, tl.float32),
            is_pure=True,
            pack=1,
        )
    w0 = ((word << 24) >> 24).to(tl.float32)
    w1 = ((word << 16) >> 24).to(tl.float32)
    w2 = ((word << 8) >> 24).to(tl.float32)
    w3 = (word >> 24).to(tl.float32)
    return w0, w1, w2, w3


@triton.jit
def mantissas_of_int4(word, BITS: tl.constexpr):
    """1 + u / 16 of the eight 4-bit integers u of words of 32 bits, the lowest first."""
    if BITS:
        return tl.inline_asm_elementwise(
            """{
            .reg .b32 even, odd;
            shl.b32 even, $8, 3;
            shr.b32 odd, $8, 1;
            lop3.b32 even, even, 0x78787878, 0x80808080, 0xEA;
            lop3.b32 odd, odd, 0x78787878, 0x80808080, 0xEA;
            prmt.b32 $0, even, 0x3F000000, 0x7044;
            prmt.b32 $1, odd, 0x3F000000, 0x7044;
            prmt.b32 $2, even, 0x3F000000, 0x7144;
            prmt.b32 $3, odd, 0x3F000000, 0x7144;
            prmt.b32 $4, even, 0x3F000000, 0x7244;
            prmt.b32 $5, odd, 0x3F000000, 0x7244;
            prmt.b32 $6, even, 0x3F000000, 0x7344;
            prmt.b32 $7, odd, 0x3F000000, 0x7344;
            }""",
            "=r,=r,=r,=r,=r,=r,=r,=r,r",
            [word],
            dtype=(
                tl.float32, tl.float32, tl.float32, tl.float32, tl.float32, tl.float32, tl.float32, tl.float32,
            ),
            is_pure=True,
            pack=1,
        )  # fmt: skip
    w0 = (word & 15).to(tl.float32) / 16 + 1
    w1 = ((word >> 4) & 15).to(tl.float32) / 16 + 1
    w2 = ((word >> 8) & 15).to(tl.float32) / 16 + 1
    w3 = ((word >> 12) & 15).to(tl.float32) / 16 + 1
    w4 = ((word >> 16) & 15).to(tl.float32) / 16 + 1
    w5 = ((word >> 20) & 15).to(tl.float32) / 16 + 1
    w6 = ((word >> 24) & 15).to(tl.float32) / 16 + 1
    w7 = ((word >> 28) & 15).to(tl.float32) / 16 + 1
    return w0, w1, w2, w3, w4, w5, w6, w7


@triton.jit
def numbers_of_int4(byte, dtype: tl.constexpr, BITS: tl.constexpr):
    """u − 8 of the lower and of the upper 4 bits u of bytes; `dtype` is bfloat16 where `BITS`."""
    if BITS:
        return tl.inline_asm_elementwise(
            """{
            .reg .b32 two, upper, one, less;
            mov.b32 one, 0x3F803F80;
            mov.b32 less, 0xC308C308;
            shr.b32 upper, $4, 4;
            prmt.b32 two, $4, 0, 0x4140;
            lop3.b32 two, two, 0x000F000F, 0x43004300, 0xEA;
            fma.rn.bf16x2 $0, two, one, less;
            prmt.b32 two, $4, 0, 0x4342;
            lop3.b32 two, two, 0x000F000F, 0x43004300, 0xEA;
            fma.rn.bf16x2 $1, two, one, less;
            prmt.b32 two, upper, 0, 0x4140;
            lop3.b32 two, two, 0x000F000F, 0x43004300, 0xEA;
            fma.rn.bf16x2 $2, two, one, less;
            prmt.b32 two, upper, 0, 0x4342;
            lop3.b32 two, two, 0x000F000F, 0x43004300, 0xEA;
            fma.rn.bf16x2 $3, two, one, less;
            }""",
            "=r,=r,=r,=r,r",
            [byte],
            dtype=(tl.bfloat16, tl.bfloat16),
            is_pure=True,
            pack=4,
        )
    low = ((byte & 15).to(tl.float32) - 8).to(dtype)
    high = ((byte >> 4).to(tl.float32) - 8).to(dtype)
    return low, high


@triton.jit
def into_cache(ptr, first, count: tl.constexpr, end):
    """Have the `count` numbers from place `first` on that are in front of `end` brought into the device's second cache,
    without waiting for them."""
    LINE: tl.constexpr = 128 // (ptr.dtype.element_ty.primitive_bitwidth // 8)
    line = tl.arange(0, triton.next_power_of_2(count // LINE))
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.u32 $0, 0;",
        "=r,l",
        [ptr + tl.minimum(first + line * LINE, end - 1)],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )


@triton.jit
def hand_over_row(row, rows, id, logprob, tokens_ptr, cursor_ptr, turns_ptr, slots_ptr, SLOTS: tl.constexpr):
    """What `engine.hand_over` says, of the row of this program, whose id is a float."""
    tl.store(tokens_ptr + row, id.to(tl.int64))
    turn = tl.load(turns_ptr + row)
    tl.debug_barrier()
    tl.store(turns_ptr + row, turn + 1)
    at = slots_ptr + turn % SLOTS * 2 * rows + row
    tl.store(at, id)
    tl.store(at + rows, logprob)
    if row == 0:
        cursor = tl.load(cursor_ptr)
        tl.debug_barrier()
        tl.store(cursor_ptr, cursor + 1)
