"""What tests of kernels share: random numbers, and how near results in a type have to be."""

import torch
from cuda_only import INTERPRETED

DEVICE = "cpu" if INTERPRETED else "cuda"
DTYPES = [torch.float32, torch.bfloat16]
DOTTED = DTYPES[:1] if INTERPRETED else DTYPES  # the interpreter's product takes bfloat16 for whole numbers


def numbers(*shape, dtype=torch.float32):
    return torch.randn(shape, device=DEVICE).to(dtype)


def assert_close(got, exact, dtype):
    """To the rounding of a result in `dtype`, beside the largest: plain paths in float32 are taken as exact."""
    assert got.shape == exact.shape and torch.isfinite(got).all()
    limit = {torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype] * exact.abs().max().item()
    assert (got.float() - exact).abs().max().item() <= limit
