"""Attention against its definition, and the masks of prefixes."""

import pytest
import torch

from mmcli.engine.kv_cache import Groups
from mmcli.layers import attention
from mmcli.layers.attention import attend, attend_by_head, attend_shared, prefix_mask, prefix_positions


def tensors(heads: int, key_heads: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, heads, 7, 8, generator=generator) * 3
    k, v = torch.randn(2, 2, key_heads, 9, 8, generator=generator)
    mask = torch.rand(2, 1, 7, 9, generator=generator) > 0.4
    mask[..., 0] = True
    return q, k, v, mask


def definition(q, k, v, mask, scale, softcap):
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1).double() for x in (k, v))
    scores = q.double() @ k.mT * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    return (scores.masked_fill(~mask, -torch.inf).softmax(-1) @ v).float()


@pytest.mark.parametrize("heads, key_heads", [(4, 4), (4, 2), (4, 1)])
@pytest.mark.parametrize("softcap", [None, 2.0, 50.0])
def test_it_equals_the_definition_in_double_precision(heads, key_heads, softcap):
    q, k, v, mask = tensors(heads, key_heads)
    expected = definition(q, k, v, mask, 0.3, softcap)
    torch.testing.assert_close(attend(q, k, v, mask, 0.3, softcap), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scores", [1, 2 * 4 * 9 * 3])
def test_reading_queries_in_blocks_changes_nothing(scores, monkeypatch):
    q, k, v, mask = tensors(4, 2)
    whole = attend(q, k, v, mask, 0.3, 2.0)
    monkeypatch.setattr(attention, "SCORES", scores)
    torch.testing.assert_close(attend(q, k, v, mask, 0.3, 2.0), whole)
    one = mask[:, :, :1]  # a mask that all queries share
    torch.testing.assert_close(attend(q, k, v, one, 0.3, 2.0), definition(q, k, v, one, 0.3, 2.0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_a_single_query_takes_the_same_weights_by_every_way(softcap, dtype, tolerance):
    q, k, v, mask = tensors(4, 2)
    q, k, v, mask = q[:, :, :1].to(dtype), k.to(dtype), v.to(dtype), mask[:, :, :1]
    expected = definition(q, k, v, mask, 0.3, softcap)
    torch.testing.assert_close(attend(q, k, v, mask, 0.3, softcap).float(), expected, rtol=tolerance, atol=tolerance)


def test_a_prefix_sees_itself_whole_and_padding_sees_and_shows_nothing():
    valid = torch.tensor([[False, True, True], [True, True, True]])
    assert prefix_mask(valid)[:, 0].int().tolist() == [[[1, 0, 0], [0, 1, 1], [0, 1, 1]], [[1, 1, 1]] * 3]
    assert prefix_positions(valid).tolist() == [[0, 0, 1], [0, 1, 2]]


@pytest.mark.parametrize("heads, key_heads", [(4, 4), (4, 2), (4, 1)])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("queries", [1, 3])
def test_rows_that_share_a_prefix_see_what_their_copies_would_see(heads, key_heads, softcap, queries):
    generator = torch.Generator().manual_seed(1)
    q = torch.randn(6, heads, queries, 8, generator=generator)
    prefix = torch.randn(2, 2, key_heads, 9, 8, generator=generator).unbind(0)  # of two prefixes, three rows each
    own = torch.randn(2, 6, key_heads, 4, 8, generator=generator).unbind(0)
    mask = torch.rand(6, 1, queries, 13, generator=generator) > 0.4
    mask[..., 0] = True
    k, v = (torch.cat((p.repeat_interleave(3, 0), o), 2) for p, o in zip(prefix, own, strict=True))
    expected = definition(q, k, v, mask, 0.3, softcap)
    torch.testing.assert_close(attend_shared(q, prefix, own, mask, 0.3, softcap), expected, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("owners", [[0, 0, 1, 1, 2, 2], [2, 0, 0, 2, 0, 1], [1, 1, 1, 1, 1, 1], [2, 1, 0, 0, 1, 1]])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
def test_rows_in_any_order_read_the_prefix_that_is_theirs(owners, dtype, tolerance):
    generator = torch.Generator().manual_seed(0)
    prefix = torch.randn(2, 3, 2, 5, 8, generator=generator).to(dtype)
    own = torch.randn(2, 6, 2, 4, 8, generator=generator)
    q, mask = torch.randn(6, 4, 2, 8, generator=generator), torch.rand(6, 1, 2, 9, generator=generator) > 0.4
    mask[..., 0] = True
    whole = torch.cat((prefix.float()[:, owners], own), dim=-2)
    groups = Groups.of(owners, 3, torch.device("cpu"))
    assert (groups is None) == (owners == sorted(owners) and len(set(owners)) == 3)
    found = attend_shared(q, tuple(prefix), tuple(own), mask, 0.3, None, groups)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, definition(q, *whole, mask, 0.3, None), rtol=tolerance, atol=tolerance)


def test_head_by_head_it_computes_the_same_with_grouped_keys_and_in_blocks(monkeypatch):
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 6, 11, 8), torch.randn(2, 2, 7, 8), torch.randn(2, 2, 7, 8)
    expected = attend(q, k, v, None, 0.3)
    torch.testing.assert_close(attend_by_head(q, k, v, 0.3), expected)
    monkeypatch.setattr("mmcli.layers.attention.SCORES_OF_HEAD", 30)
    torch.testing.assert_close(attend_by_head(q, k, v, 0.3), expected)
    every = torch.ones(2, 1, 11, 7, dtype=torch.bool)
    for cap in (None, 5.0):
        torch.testing.assert_close(attend(q, k, v, None, 0.3, cap), attend(q, k, v, every, 0.3, cap))
