"""Every kernel against its plain road, on odd shapes: on a CUDA device, or on a CPU with TRITON_INTERPRET=1."""

import os

import pytest
import torch

from mmcli.layers.attention import additive
from mmcli.layers.rope import rotary_angles

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
pytestmark = pytest.mark.skipif(not torch.cuda.is_available() and not INTERPRETED, reason="needs a CUDA device")
DEVICE = "cpu" if INTERPRETED else "cuda"
DTYPES = [torch.float32, torch.bfloat16]
DOTTED = DTYPES[:1] if INTERPRETED else DTYPES  # the interpreter's product takes bfloat16 for whole numbers


@pytest.fixture(autouse=True)
def drawn():
    torch.manual_seed(0)


@pytest.fixture(autouse=INTERPRETED)
def coarse(monkeypatch):
    """Fewer programs: the interpreter runs one after the other."""
    from mmcli.layers.kernels import matvec

    monkeypatch.setattr(matvec, "tiles", lambda *shape: matvec.Tiles(32, 1024, 4))


def numbers(*shape, dtype=torch.float32):
    return torch.randn(shape, device=DEVICE).to(dtype)


def assert_close(got, exact, dtype):
    """To the rounding of a result in `dtype`, beside the largest: plain roads in float32 are taken as exact."""
    assert got.shape == exact.shape and torch.isfinite(got).all()
    limit = {torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype] * exact.abs().max().item()
    assert (got.float() - exact).abs().max().item() <= limit


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 3, 17])
@pytest.mark.parametrize("width", [64, 100, 2304])
@pytest.mark.parametrize("sandwich", [False, True])
def test_residual_norm(rows, width, sandwich, dtype):
    from mmcli.layers.kernels import residual_norm

    x, y = numbers(rows, width, dtype=dtype), numbers(rows, width, dtype=dtype)
    inner, outer = 1 + numbers(width) / 4 if sandwich else None, numbers(width, dtype=dtype)
    total, normed = residual_norm.residual_norm(x, y, inner, outer, 1e-6)
    exact_total, _ = residual_norm.plain(x.float(), y.float(), inner, outer, 1e-6)
    assert_close(total, exact_total, dtype)
    # The norm is that of the sum as it was rounded.
    assert_close(normed, residual_norm.plain(total.float(), 0 * y.float(), None, outer, 1e-6)[1], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows, inner", [(1, 64), (3, 1500), (17, 130)])
def test_gated_gelu(rows, inner, dtype):
    from mmcli.layers.kernels import gated_gelu

    x = 4 * numbers(rows, 2 * inner, dtype=dtype)
    assert_close(gated_gelu.gated_gelu(x), gated_gelu.plain(x.float()), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 2, 3, 4])
@pytest.mark.parametrize("outputs, inputs", [(2, 64), (70, 2304), (33, 1025)])
@pytest.mark.parametrize("kind", ["bare", "norm", "gated", "gated norm", "residual", "softcap"])
def test_matvec(rows, outputs, inputs, kind, dtype):
    from mmcli.layers.kernels import matvec

    x = numbers(rows, inputs, dtype=dtype)
    weight = (3 * numbers(outputs * (2 if "gated" in kind else 1), inputs) / inputs**0.5).to(dtype)
    settings = {"gated": "gated" in kind}
    exact = dict(settings)
    if "norm" in kind:
        settings |= {"norm": 1 + numbers(inputs) / 4, "epsilon": 1e-6}
        exact = dict(settings)
    if kind == "residual":
        settings["residual"] = numbers(rows, outputs, dtype=dtype)
        exact["residual"] = settings["residual"].float()
    if kind == "softcap":
        exact["softcap"] = settings["softcap"] = 2.0
        settings["dtype"] = torch.float32
    got = matvec.matvec(x, weight, **settings)
    assert got.dtype == settings.get("dtype", dtype)
    assert_close(got, matvec.plain(x.float(), weight.float(), **exact), dtype)


def attention(rows, heads, key_heads, length, width, dtype, cursor=None):
    """A cache in use: rows that begin at different places, the newest token at `cursor`, rubbish behind it."""
    cursor = length - 1 if cursor is None else cursor
    qkv = numbers(rows, (heads + 2 * key_heads) * width, dtype=dtype)
    store = numbers(2, rows, key_heads, length, width, dtype=dtype)
    first = torch.arange(rows, device=DEVICE) * cursor // (rows + 1)
    places = torch.arange(length, device=DEVICE)
    valid = (places >= first[:, None]) & (places <= cursor)
    angles = rotary_angles(cursor - first[:, None], width, 10_000.0)
    return qkv, store, valid[:, None, None, :], angles, torch.tensor([cursor], device=DEVICE)


def check_attention(qkv, store, mask, angles, cursor, dtype, softcap=None, window=0):
    from mmcli.layers.kernels import single_query

    if window:
        mask = mask & (torch.arange(mask.shape[-1], device=DEVICE) > cursor - window)
    angles = tuple(part.to(dtype) for part in angles)
    scale = store.shape[-1] ** -0.5
    exact, kept = store.float().clone(), store.clone()
    expected = single_query.plain(
        qkv.float(),
        *exact,
        tuple(part.float() for part in angles),
        additive(mask, torch.float32),
        cursor,
        scale,
        softcap,
    )
    got = single_query.single_query(qkv, *kept, angles, additive(mask, dtype), cursor, scale, softcap, window)
    assert_close(got, expected, dtype)
    assert_close(kept, exact, dtype)  # the new entry stands in the cache
    changed = (kept != store).any(-1).flatten(0, 2).any(0).nonzero().flatten()
    assert changed.tolist() == cursor.tolist()


@pytest.mark.parametrize("dtype", DOTTED)
@pytest.mark.parametrize("rows", [1, 3] if INTERPRETED else [1, 3, 17])
@pytest.mark.parametrize("length", [1, 31, 257] if INTERPRETED else [1, 31, 32, 33, 257, 1000, 5000])
@pytest.mark.parametrize("heads, key_heads, width", [(8, 1, 256), (4, 2, 64), (6, 6, 80), (8, 4, 128)])
def test_single_query(rows, heads, key_heads, length, width, dtype):
    check_attention(*attention(rows, heads, key_heads, length, width, dtype), dtype)


@pytest.mark.parametrize("dtype", DOTTED)
@pytest.mark.parametrize("cursor", [0, 5, 31, 32, 100, 299])
@pytest.mark.parametrize("softcap, window", [(None, 0), (3.0, 0), (None, 40), (3.0, 1)])
def test_single_query_in_a_cache_with_room(cursor, softcap, window, dtype):
    check_attention(*attention(2, 8, 2, 300, 64, dtype, cursor), dtype, softcap, window)
