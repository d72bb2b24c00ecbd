"""Attention of a step's single queries by kernels against plain PyTorch; see `test_kernels.py`."""

import pytest
import torch
from cuda_only import needs_kernels
from kernel_numbers import DEVICE, DOTTED, INTERPRETED, assert_close, numbers

from mmcli.layers.attention import additive
from mmcli.layers.rope import rotary_angles

needs_kernels()


def attention(rows, heads, key_heads, length, width, dtype, cursor=None, fresh=True):
    """A cache in use: rows that begin at different places, the newest token at `cursor`, rubbish behind it."""
    cursor = length - 1 if cursor is None else cursor
    qkv = numbers(rows, (heads + (2 * key_heads if fresh else 0)) * width, dtype=dtype)
    store = numbers(2, rows, key_heads, length, width, dtype=dtype)
    first = torch.arange(rows, device=DEVICE) * cursor // (rows + 1)
    places = torch.arange(length, device=DEVICE)
    valid = (places >= first[:, None]) & (places <= cursor)
    angles = rotary_angles(cursor - first[:, None], width, 10_000.0)
    return qkv, store, valid[:, None, None, :], angles, torch.tensor([cursor], device=DEVICE)


def check_attention(qkv, store, mask, angles, cursor, dtype, softcap=None, window=0, norms=None, fresh=True):
    from mmcli.layers.kernels import one_query, single_query

    if window:
        mask = mask & (torch.arange(mask.shape[-1], device=DEVICE) > cursor - window)
    angles = angles and tuple(part.to(dtype) for part in angles)
    scale = store.shape[-1] ** -0.5  # scores of about 1: the rounding of larger ones is what exp makes large
    exact = store.float().clone()
    expected = single_query.plain(
        qkv.float(), *exact, angles and tuple(part.float() for part in angles), additive(mask, torch.float32),
        cursor, scale, softcap, norms, fresh,
    )  # fmt: skip
    after = softcap, window, norms, fresh
    arrivals = torch.zeros(256, dtype=torch.int32, device=DEVICE)
    # By two kernels, of which the first takes half as many keys at a time, and where one kernel does it by that, the
    # second time with what the first one left.
    for counts in (None, arrivals, arrivals):
        kept = store.clone()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(one_query, "PROGRAMS", range(1 << 16))  # also where it is not faster
            for name, value in ("WIDE", 1), ("MANY_HEADS", 2), ("SHORT", 300):
                patch.setattr(single_query, name, value)
            got = single_query.single_query(qkv, *kept, angles, additive(mask, dtype), cursor, scale, *after, counts)
        assert_close(got, expected, dtype)
        assert_close(kept, exact, dtype)  # the new entry stands in the cache
        changed = (kept != store).any(-1).flatten(0, 2).any(0).nonzero().flatten()
        assert changed.tolist() == (cursor.tolist() if fresh else [])
        assert not arrivals.any()


@pytest.mark.parametrize("dtype", DOTTED)
@pytest.mark.parametrize("rows", [1, 3] if INTERPRETED else [1, 3, 17])
@pytest.mark.parametrize("length", [1, 31, 257] if INTERPRETED else [1, 31, 32, 33, 257, 1000, 5000])
@pytest.mark.parametrize("heads, key_heads, width", [(8, 1, 256), (4, 2, 64), (6, 6, 80), (8, 4, 128)])
def test_single_query(rows, heads, key_heads, length, width, dtype):
    check_attention(*attention(rows, heads, key_heads, length, width, dtype), dtype)


@pytest.mark.parametrize("dtype", DOTTED)
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("cursor", [0, 5, 31, 32, 100, 299])
@pytest.mark.parametrize("softcap, window", [(None, 0), (3.0, 0), (None, 40), (3.0, 1)])
def test_single_query_in_a_cache_with_room(rows, cursor, softcap, window, dtype):
    check_attention(*attention(rows, 8, 2, 300, 64, dtype, cursor), dtype, softcap, window)


@pytest.mark.parametrize("dtype", DOTTED)
@pytest.mark.parametrize("rows", [1, 3] if INTERPRETED else [1, 3, 17])
@pytest.mark.parametrize("length", [70] if INTERPRETED else [1, 70, 5000])
@pytest.mark.parametrize("width", [64, 256])
@pytest.mark.parametrize("softcap, window", [(3.0, 0), (None, 33), (3.0, 33)])
def test_single_query_with_a_softcap_and_a_window_over_all_lengths(rows, length, width, softcap, window, dtype):
    check_attention(*attention(rows, 4, 2, length, width, dtype), dtype, softcap, window)


@pytest.mark.parametrize("dtype", DOTTED)
@pytest.mark.parametrize("rows, length, cursor", [(1, 1, 0), (1, 200, 64), (3, 200, 64), (17, 100, 99)])
@pytest.mark.parametrize("width", [64, 80, 256])
def test_single_query_with_layer_norms(rows, length, cursor, width, dtype):
    from mmcli.layers.kernels.single_query import Norms

    scales, shifts = ([centre + numbers(width) / 4 for _ in range(2)] for centre in (1, 0))
    norms = Norms(*scales, 1e-5, *shifts)
    check_attention(*attention(rows, 6, 3, length, width, dtype, cursor), dtype, None, 0, norms)


@pytest.mark.parametrize("dtype", DOTTED)
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("cursor, window", [(0, 0), (64, 0), (150, 40)])
@pytest.mark.parametrize("fresh", [True, False])
def test_single_query_with_norms_and_without_an_entry_of_its_own(rows, cursor, window, fresh, dtype):
    from mmcli.layers.kernels.single_query import Norms

    norms = Norms(1 + numbers(96) / 4, 1 + numbers(96) / 4 if fresh else None, 1e-6)
    given = attention(rows, 4, 2, 200, 96, dtype, cursor, fresh)
    check_attention(*given, dtype, None, window, norms, fresh)


@pytest.mark.parametrize("dtype", DOTTED)
@pytest.mark.parametrize("rows, heads, length, width", [(1, 6, 1500, 64), (3, 5, 33, 80), (17, 20, 300, 64)])
def test_single_query_of_everything_that_an_encoder_made(rows, heads, length, width, dtype):
    from mmcli.layers.kernels import single_query

    query, store = numbers(rows, heads * width, dtype=dtype), numbers(2, rows, heads, length, width, dtype=dtype)
    whole = None, None, None, width**-0.5
    exact = single_query.plain(query.float(), *store.float(), *whole, fresh=False)
    assert_close(single_query.single_query(query, *store, *whole, fresh=False), exact, dtype)
    norms = single_query.Norms(1 + numbers(width) / 4, None, 1e-6)
    exact = single_query.plain(query.float(), *store.float(), *whole, norms=norms, fresh=False)
    assert_close(single_query.single_query(query, *store, *whole, norms=norms, fresh=False), exact, dtype)


@pytest.mark.parametrize("dtype", DOTTED)
@pytest.mark.parametrize("rows", [1, 3])
def test_single_query_without_positions(rows, dtype):
    qkv, store, mask, _, cursor = attention(rows, 4, 4, 70, 64, dtype, 40)
    check_attention(qkv, store, mask, None, cursor, dtype)
