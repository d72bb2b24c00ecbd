"""Gemma 3n's own kernels against their plain paths, on odd shapes: on a CUDA device, or with TRITON_INTERPRET=1."""

import copy
from types import SimpleNamespace

import pytest
import torch
from cuda_only import INTERPRETED, needs_kernels
from torch import nn

from mmcli.models.gemma3n.altup import AltUp

needs_kernels()
DEVICE = "cpu" if INTERPRETED else "cuda"
DTYPES = [torch.float32, torch.bfloat16]
ROWS, WIDTHS = [1, 3, 17], [64, 100, 2304]


@pytest.fixture(autouse=True)
def drawn():
    torch.manual_seed(0)


def numbers(*shape, dtype=torch.float32):
    return torch.randn(shape, device=DEVICE).to(dtype)


def assert_close(found, exact, dtype):
    """To two roundings to `dtype`, beside the largest: plain paths in float32 are taken as exact.

    One is of a sum within, the other of the result; the interpreter cuts off, which is wrong by up to 2⁻⁷.
    """
    limit = {torch.float32: 1e-5, torch.bfloat16: 2 * 2.0**-7}[dtype]
    for got, right in zip(found, exact, strict=True):
        assert got.shape == right.shape and got.dtype == dtype
        assert (got.float() - right).abs().max() <= limit * right.abs().max()


def norm(width, dtype):
    made = nn.RMSNorm(width, eps=1e-5, device=DEVICE, dtype=dtype).requires_grad_(False)
    made.weight.copy_(1 + numbers(width) / 4)
    return made


def alike(module):
    """The same numbers in float32."""
    return None if module is None else copy.deepcopy(module).float()


def altup(width, streams, dtype, corrects_scale=True):
    made = AltUp(width, streams, 1e-5, corrects_scale).to(DEVICE).requires_grad_(False)
    for parameter in made.parameters():
        parameter.copy_(torch.randn_like(parameter) / parameter.shape[-1] ** (0.5 * (parameter.ndim > 1)))
    made.norm.weight.add_(1)
    made.router.weight.mul_(width)  # it is divided by that
    made.fuse()
    return made.to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("streams", [2, 4])
@pytest.mark.parametrize("more", [True, False], ids=["more", ""])
def test_predict(rows, width, streams, more, dtype):
    from mmcli.models.gemma3n.kernels import altup as kernel

    parts, x = altup(width, streams, dtype), numbers(rows, streams, width, dtype=dtype)
    added = numbers(rows, width, dtype=dtype) if more else None
    norms = norm(width, dtype), norm(width, dtype)
    exact = kernel.plain_predict(alike(parts), x.float(), added.float() if more else None, *map(alike, norms))
    assert_close(kernel.predict(parts, x, added, *norms), exact, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("streams, corrects_scale", [(2, True), (4, True), (4, False)])
def test_correct(rows, width, streams, corrects_scale, dtype):
    from mmcli.models.gemma3n.kernels import altup as kernel

    parts, predicted = altup(width, streams, dtype, corrects_scale), numbers(rows, streams, width, dtype=dtype)
    x, y, after = numbers(rows, width, dtype=dtype), numbers(rows, width, dtype=dtype), norm(width, dtype)
    exact = kernel.plain_correct(alike(parts), predicted.float(), x.float(), y.float(), alike(after))
    assert_close(kernel.correct(parts, predicted, x, y, after), exact, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("width", WIDTHS)
def test_joined(rows, width, dtype):
    from mmcli.models.gemma3n.kernels import laurel

    layer = SimpleNamespace(
        norm_attention_out=norm(width, dtype), laurel=nn.Module(), norm_mlp=norm(width, dtype)
    )  # of a layer what is read
    layer.laurel.norm = norm(width, dtype)
    given = numbers(rows, 4, width, dtype=dtype), *(numbers(rows, width, dtype=dtype) for _ in range(3))
    plainly = SimpleNamespace(**{name: alike(part) for name, part in vars(layer).items()})
    x, ready = laurel.plain(plainly, *(part.float() for part in given))
    got = laurel.joined(layer, *given)
    # The norm is that of the sum as it was rounded.
    assert_close(got, (x, plainly.norm_mlp(got[0].float())), dtype)
    assert_close(got[1:], (ready,), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("inner", [64, 130, 5000])
@pytest.mark.parametrize("deviations", [0.0, 1.6])
def test_sparse_gelu(rows, inner, deviations, dtype):
    from mmcli.models.gemma3n.kernels import sparse_gelu

    x = 2 + 3 * numbers(rows, 2 * inner, dtype=dtype)
    exact = sparse_gelu.plain(x.float(), deviations)
    assert_close([sparse_gelu.sparse_gelu(x, deviations)], [exact], dtype)
