"""Attention of a prompt against its plain path: on a CUDA device, or on a CPU with TRITON_INTERPRET=1."""

import pytest
import torch
from cuda_only import INTERPRETED, needs_kernels

from mmcli.layers import kernels
from mmcli.layers.attention import attend, prefix_mask

needs_kernels()
DEVICE = "cpu" if INTERPRETED else "cuda"
# The interpreter's product takes bfloat16 for whole numbers.
DTYPE = torch.float32 if INTERPRETED else torch.bfloat16
LIMIT = 1e-5 if INTERPRETED else 1e-2  # beside the largest number

# Heads, those of keys, their width.
HEADS = [(8, 1, 256), (8, 4, 256), (4, 2, 64), (3, 3, 72)]


def drawn(rows: int, count: int, length: int, heads: int, key_heads: int, width: int) -> tuple[torch.Tensor, ...]:
    """Queries, keys and values as they lie in memory: of all heads behind each other, and in a longer cache."""
    torch.manual_seed(0)
    q = torch.randn(rows, count, heads, width, device=DEVICE).to(DTYPE).transpose(1, 2)
    k, v = torch.randn(2, rows, key_heads, length + 9, width, device=DEVICE).to(DTYPE)
    return q, k[:, :, 4:-5], v[:, :, 4:-5]


def mask_of(kind: str, rows: int, length: int) -> torch.Tensor:
    """ "prefix": all that is no padding, of which the first rows have most; "causal" for all rows; "last": of the last
    tokens alone, with a window."""
    places = torch.arange(length, device=DEVICE)
    if kind == "prefix":
        padding = torch.arange(rows, 0, -1, device=DEVICE)[:, None] * (length // (rows + 1))
        return prefix_mask(places >= padding)
    back = places[:, None] - places
    causal = (back >= 0)[None, None]
    return causal if kind == "causal" else (causal & (back < 5))[:, :, -(length // 3 + 1) :]


def check(rows: int, length: int, shape: tuple[int, int, int], kind: str, softcap: float | None) -> None:
    from mmcli.layers.kernels import several_queries

    mask = mask_of(kind, rows, length)
    q, k, v = drawn(rows, mask.shape[2], length, *shape)
    got = several_queries.several_queries(q, k, v, mask, 0.3 * shape[2] ** -0.5, softcap)
    whole = (part.float() for part in (q, k, v))
    exact = several_queries.plain(*whole, mask, 0.3 * shape[2] ** -0.5, softcap)
    assert got.shape == exact.shape and got.dtype == DTYPE and torch.isfinite(got).all()
    assert got.transpose(1, 2).is_contiguous()
    assert (got.float() - exact).abs().max() <= LIMIT * exact.abs().max()


@pytest.mark.parametrize("rows", [1, 3, 17])
@pytest.mark.parametrize("kind", ["prefix", "causal", "last"])
def test_every_mask(rows, kind):
    check(rows, 37, (4, 2, 64), kind, None)


@pytest.mark.parametrize("shape", HEADS)
@pytest.mark.parametrize("length", [2, 64, 150])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_every_form_of_heads(shape, length, softcap):
    check(2, length, shape, "prefix", softcap)


@pytest.mark.skipif(INTERPRETED, reason="of short types the interpreter has none")
@pytest.mark.parametrize("softcap", [None, 50.0])
def test_attention_goes_through_it_where_nothing_is_learnt(softcap, monkeypatch):
    from mmcli.layers.kernels import several_queries

    if not kernels.is_hopper(None):
        pytest.skip("made for Hopper")
    started = []
    kernel = several_queries.several_queries
    monkeypatch.setattr(several_queries, "several_queries", lambda *given: started.append(1) or kernel(*given))
    q, k, v = drawn(2, 37, 37, 8, 1, 256)
    mask = mask_of("prefix", 2, 37)
    with torch.inference_mode():
        ours = attend(q, k, v, mask, 0.1, softcap)
        monkeypatch.setenv(kernels.SWITCH, "0")
        theirs = attend(q, k, v, mask, 0.1, softcap)
    monkeypatch.setenv(kernels.SWITCH, "1")
    attend(q, k, v, mask, 0.1, softcap)  # with gradients on
    assert started == [1]
    assert (ours - theirs).abs().max() <= 2e-2 * theirs.abs().max()
