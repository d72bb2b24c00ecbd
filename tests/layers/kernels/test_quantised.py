"""Products with weights in integers against the same multiplied out: CUDA, or TRITON_INTERPRET=1 on a CPU."""

import pytest
import torch
from cuda_only import needs_kernels
from kernel_numbers import DEVICE, DOTTED, INTERPRETED

from mmcli.hub.quantized import multiplied, quantize

needs_kernels()


@pytest.mark.parametrize("dtype", DOTTED)
@pytest.mark.parametrize("storage", ["int8", "int4"])
@pytest.mark.parametrize("outputs, inputs", [(3, 64), (70, 2304), (33, 1056), (130, 32), (5, 8224)])
@pytest.mark.parametrize("rows", [1, 3, 17, 32])
def test_products(rows, outputs, inputs, storage, dtype):
    from mmcli.layers.kernels import quantised

    torch.manual_seed(0)
    x = torch.randn(rows, inputs, device=DEVICE).to(dtype)
    stored, scale = quantize(torch.randn(outputs, inputs, device=DEVICE) / inputs**0.5, storage)
    assert quantised.fits(stored)
    exact = quantised.plain(x.float(), stored, scale)
    got = quantised.product(x, stored, scale)
    assert got.shape == exact.shape and got.dtype == dtype
    limit = {torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype]
    assert (got.float() - exact).abs().max() <= limit * exact.abs().max()


@pytest.mark.parametrize("dtype", DOTTED)
@pytest.mark.parametrize("storage", ["int8", "int4"])
@pytest.mark.parametrize("rows", [1, 3, 17])
def test_gated(rows, storage, dtype):
    from mmcli.layers.kernels import gated, quantised

    torch.manual_seed(0)
    x = torch.randn(rows, 1056, device=DEVICE).to(dtype)
    stored, scale = quantize(torch.randn(2 * 70, 1056, device=DEVICE) / 1056**0.5, storage)
    exact = gated.plain(quantised.plain(x.float(), stored, scale), "silu")
    got = quantised.gated(x, stored, scale, "silu")
    assert got.shape == exact.shape and got.dtype == dtype
    limit = {torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]  # with several rows gates are rounded first
    assert (got.float() - exact).abs().max() <= limit * exact.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32] if INTERPRETED else [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("storage", ["int8", "int4"])
@pytest.mark.parametrize("shape", [(3, 64), (17, 4128), (1, 32)])
def test_multiplied_out_is_what_the_integers_mean(shape, storage, dtype):
    from mmcli.layers.kernels import quantised

    torch.manual_seed(1)
    stored, scale = quantize(torch.randn(shape, device=DEVICE), storage)
    assert torch.equal(quantised.multiply_out(stored, scale, dtype), multiplied(stored, scale).to(dtype))
