"""What kernels are made of: functions of numbers in float32."""

import triton
import triton.language as tl


@triton.jit
def gelu(x):
    """x · Φ(x) in the tanh form, whose tanh is written as a sigmoid (Hendrycks & Gimpel, arXiv:1606.08415)."""
    return x / (1.0 + tl.exp(-1.5957691216057308 * (x + 0.044715 * x * x * x)))


@triton.jit
def tanh(x):
    """Through one exponential, which may become infinite."""
    return 1.0 - 2.0 / (tl.exp(2.0 * x) + 1.0)


@triton.jit
def rms_normed(x, width, epsilon):
    """The RMSNorm of a vector of `width` numbers, without a scale; what is behind them is 0 and stays so."""
    return x * (1.0 / tl.sqrt(tl.sum(x * x, axis=0) / width + epsilon))
