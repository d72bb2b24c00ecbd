"""Kernels of a step that ask for what they read before they need it, against plain PyTorch; see `test_kernels.py`."""

import pytest
import torch
from cuda_only import needs_kernels
from kernel_numbers import DEVICE, DTYPES, assert_close, numbers

from mmcli.layers.attention import additive

needs_kernels()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("outputs, inputs", [(3, 64), (5, 96), (70, 1280), (9, 5120)])
@pytest.mark.parametrize("biased, floats", [(True, False), (False, True)])
def test_whole_row(outputs, inputs, biased, floats, dtype):
    from mmcli.layers.kernels import matvec, whole_row

    x, weight = numbers(1, inputs, dtype=dtype), (3 * numbers(outputs, inputs) / inputs**0.5).to(dtype)
    bias = 3 * numbers(outputs, dtype=dtype) if biased else None
    got = whole_row.whole_row(x, weight, bias, floats)
    assert got.dtype == (torch.float32 if floats else dtype) and torch.equal(got, got.to(dtype).to(got.dtype))
    assert_close(got, matvec.plain(x.float(), weight.float(), None, None if bias is None else bias.float()), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "rows, heads, length, width", [(1, 6, 1500, 64), (3, 5, 33, 80), (17, 2, 31, 64), (1, 2, 129, 16)]
)
def test_cross_query(rows, heads, length, width, dtype):
    from mmcli.layers.kernels import cross_query, single_query

    query, store = numbers(rows, heads * width, dtype=dtype), numbers(2, rows, heads, length, width, dtype=dtype)
    assert cross_query.fits(query, store[0])
    exact = single_query.plain(query.float(), *store.float(), None, None, None, width**-0.5, fresh=False)
    assert_close(cross_query.cross_query(query, *store, width**-0.5), exact, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 3, 17])
@pytest.mark.parametrize("length, cursor", [(1, 0), (70, 40), (300, 0), (300, 128), (300, 299), (448, 129)])
@pytest.mark.parametrize("width", [16, 64, 80])
def test_short_query(rows, length, cursor, width, dtype):
    from mmcli.layers.kernels import short_query, single_query

    qkv, store = numbers(rows, 9 * width, dtype=dtype), numbers(2, rows, 3, length, width, dtype=dtype)
    places, first = torch.arange(length, device=DEVICE), torch.arange(rows, device=DEVICE)[:, None]
    mask = ((places >= first * cursor // (rows + 1)) & (places <= cursor))[:, None, None]
    place = torch.tensor([cursor], device=DEVICE)
    exact, kept, scale = store.float().clone(), store.clone(), width**-0.5
    expected = single_query.plain(qkv.float(), *exact, None, additive(mask, torch.float32), place, scale)
    assert short_query.fits(qkv, store[0])
    assert_close(short_query.short_query(qkv, *kept, additive(mask, dtype), place, scale), expected, dtype)
    assert_close(kept, exact, dtype)  # the new entry stands in the cache
    assert (kept != store).any(-1).flatten(0, 2).any(0).nonzero().flatten().tolist() == [cursor]
