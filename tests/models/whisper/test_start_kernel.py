"""Whisper's kernel in front of a step against its plain path: on a CUDA device, or with TRITON_INTERPRET=1."""

import pytest
import torch
from cuda_only import INTERPRETED, needs_kernels
from torch import nn

from mmcli.engine.kv_cache import KVCache

needs_kernels()
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")


def fixed_cache(rows, length, cursor):
    """A cache whose rows begin at different places, with the next token's place at `cursor`."""
    cache = KVCache(1, rows, length, 1, 8, torch.float32, DEVICE)
    first = torch.arange(rows, device=DEVICE) * cursor // (rows + 1)
    places = torch.arange(length, device=DEVICE)
    cache.valid.copy_((places >= first[:, None]) & (places < cursor))
    cache.positions.copy_(cursor - first)
    cache.cursor.fill_(cursor)
    cache.fixed = True
    return cache


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 3, 17])
@pytest.mark.parametrize("length, cursor", [(1, 0), (70, 69), (448, 200), (5000, 447)])
@pytest.mark.parametrize("width", [64, 100, 1280])
def test_start(rows, length, cursor, width, dtype):
    from mmcli.models.whisper.kernels import start

    torch.manual_seed(0)
    table = torch.randn(70, width, device=DEVICE).to(dtype)
    position = torch.randn(max(cursor, 1) + 1, width, device=DEVICE).to(dtype)
    norm = nn.LayerNorm(width, device=DEVICE, dtype=dtype).requires_grad_(False)
    norm.weight.copy_(torch.randn(width)), norm.bias.copy_(torch.randn(width))
    tokens = torch.randint(70, (rows,), device=DEVICE)
    own, other = fixed_cache(rows, length, cursor), fixed_cache(rows, length, cursor)
    x, normed, bias = start.start(tokens, own, table, position, norm)
    right, _, right_bias = start.plain(tokens, other, table, position, norm)
    cut = 2.0**-7 if INTERPRETED and dtype == torch.bfloat16 else 0.0  # of what the interpreter cuts off
    torch.testing.assert_close(x, right, rtol=cut, atol=0)
    torch.testing.assert_close(bias, right_bias, rtol=cut, atol=0)
    exact = nn.functional.layer_norm(x.float(), (width,), norm.weight.float(), norm.bias.float(), norm.eps)
    assert normed.dtype == dtype
    assert (normed.float() - exact).abs().max() <= {torch.float32: 1e-5, torch.bfloat16: 1e-2}[
        dtype
    ] * exact.abs().max()
    assert torch.equal(own.valid, other.valid) and torch.equal(own.positions, other.positions)
