"""One row by weights in integers through the integer matrix units, against the same multiplied out: CUDA only."""

import pytest
import torch
from cuda_only import needs_cuda

from mmcli.hub.quantized import quantize

needs_cuda()
STORAGES = ["int8", "int4"]
SHAPES = [(3, 64), (70, 2304), (33, 1056), (130, 32), (5, 8224), (40, 16384), (2560, 2048), (257, 4096), (17, 14336)]


def made(outputs, inputs, storage):
    torch.manual_seed(0)
    stored, scale = quantize(torch.randn(outputs, inputs, device="cuda") / inputs**0.5, storage)
    x = torch.randn(1, inputs, device="cuda").bfloat16()
    x[:, ::37] *= 30  # parts of unlike size
    return x, stored, scale


def assert_close(got, exact, limit):
    assert got.shape == exact.shape and torch.isfinite(got).all()
    assert (got.float() - exact).abs().max() <= limit * exact.abs().max()


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("outputs, inputs", SHAPES)
def test_parts_sum_up_to_the_product(outputs, inputs, storage):
    from mmcli.layers.kernels import matrix_row, quantised

    x, stored, scale = made(outputs, inputs, storage)
    assert matrix_row.fits(x, stored)
    got = matrix_row.parts(x, stored, scale)
    assert got.dtype == (torch.bfloat16 if len(got) == 1 else torch.float32)
    assert_close(got.float().sum(dim=0), quantised.plain(x.float(), stored, scale), 5e-3)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("activation", ["gelu", "silu"])
@pytest.mark.parametrize("inner, inputs", [(32, 64), (100, 1056), (9, 2304), (16384, 2048), (1027, 4096)])
def test_gated(inner, inputs, activation, storage):
    from mmcli.layers.kernels import gated, matrix_row, quantised

    x, stored, scale = made(2 * inner, inputs, storage)
    exact = gated.plain(quantised.plain(x.float(), stored, scale), activation)
    assert_close(matrix_row.gated(x, stored, scale, activation), exact, 5e-3)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("blocks, warps, steps, shares", [(1, 1, 2, 5), (2, 4, 3, 1), (4, 2, 2, 3), (1, 16, 1, 1)])
def test_any_tiles(blocks, warps, steps, shares, storage, monkeypatch):
    """Rounded to 16 bits of the largest number of a part, where sums are not rounded behind that."""
    from mmcli.layers.kernels import matrix_row, quantised

    x, stored, scale = made(77, 1056, storage)
    for programs in (1, 4):
        tile = matrix_row.Tile(blocks, warps, steps, shares, programs)
        monkeypatch.setattr(matrix_row, "_tile", lambda *_, tile=tile: tile)
        got = matrix_row.parts(x, stored, scale)
        assert len(got) == shares
        assert_close(got.float().sum(dim=0), quantised.plain(x.float(), stored, scale), 5e-3 if shares == 1 else 3e-4)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("wrong", [torch.inf, -torch.inf, torch.nan])
def test_what_is_no_number_does_not_become_one(wrong, storage):
    from mmcli.layers.kernels import matrix_row

    x, stored, scale = made(20, 512, storage)
    x[0, 300] = wrong
    assert not torch.isfinite(matrix_row.parts(x, stored, scale).float().sum(dim=0)).any()


@pytest.mark.parametrize("storage", STORAGES)
def test_zeros_give_zeros(storage):
    from mmcli.layers.kernels import matrix_row

    x, stored, scale = made(20, 512, storage)
    assert not matrix_row.parts(x * 0, stored, scale).any()


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("inner, width", [(64, 96), (4096, 96), (1056, 2304), (2048, 2048), (4096, 4096), (4064, 1000)])
def test_an_addition_and_its_norm_by_the_products_around_them(inner, width, dtype, storage):
    """Read by plain PyTorch, and by the product behind them where the row is as wide as that takes it."""
    from mmcli.layers.kernels import gated, matrix_row, quantised, residual_norm, unnormed

    x, stored, scale = made(width, inner, storage)
    residual, outer = torch.randn(1, width, device="cuda").bfloat16(), torch.randn(width, device="cuda") / 4 + 1
    assert matrix_row.fits_whole(x, stored)
    row = matrix_row.added(x, stored, scale, residual, outer.to(dtype), 1e-6, 0.7)
    y = quantised.plain(x.float(), stored, scale)
    total, normed = residual_norm.plain(residual.float(), y, None, outer.to(dtype), 1e-6, 0.7)
    assert_close(row.total, total, 5e-3)
    assert_close(unnormed.plain(row), normed, 1e-2)
    assert_close(row.squares.sum(), row.total.float().square().sum(), 1e-5)
    if width % 32 == 0:
        _, stored, scale = made(2 * 27, width, storage)
        exact = gated.plain(quantised.plain(normed, stored, scale), "silu")
        assert_close(matrix_row.gated(row, stored, scale, "silu"), exact, 2e-2)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("number", [0, 1e30, torch.inf, torch.nan])
def test_numbers_that_a_norm_makes_something_else_of(number, storage):
    """Zeros, whose norm is zero, as is that of numbers whose squares are infinite; and none, which stay so."""
    from mmcli.layers.kernels import matrix_row

    x, stored, scale = made(96, 512, storage)
    residual = torch.zeros(1, 96, device="cuda").bfloat16()
    residual[0, 70] = number
    row = matrix_row.added(x * 0, stored, scale, residual, torch.ones(96, device="cuda"), 1e-6, 1.0)
    _, stored, scale = made(20, 96, storage)
    y = matrix_row.gated(row, stored, scale, "gelu")
    assert not y.any() if number in (0, 1e30) else not torch.isfinite(y).any()
