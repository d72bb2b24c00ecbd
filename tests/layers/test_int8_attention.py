"""Attention to keys and values in int8: its numbers, and that they depend on nothing beside a query and its row."""

import pytest
import torch
import torch.nn.functional as F

from mmcli.layers import encoder_decoder, int8_attention
from mmcli.layers.encoder_decoder import CrossAttention
from mmcli.layers.int8_attention import MOST_QUERIES, attend, in_bfloat16, keys_values

HEADS = 3

pytestmark = pytest.mark.skipif(not int8_attention.works(), reason="this PyTorch lacks the sums")


def made(batch=2, places=150, head=64, seed=0):
    """States and a projection of them, the exact keys and values [B, N, F, H], and those in int8."""
    torch.manual_seed(seed)
    states, weight = torch.randn(batch, places, 48), torch.randn(48, 2 * HEADS * head) / 7
    states[:, ::2] *= 5  # places that differ in size
    exact = (states @ weight).unflatten(-1, (2, HEADS, head)).permute(2, 0, 3, 1, 4)
    padded = F.pad(states, (0, HEADS * head - 48))  # as wide as what they become
    kept = keys_values(lambda x: x[..., :48] @ weight, padded, HEADS, piece=64)
    return exact, kept


def relative(found, wanted):
    return ((found.float() - wanted).norm() / wanted.norm()).item()


@pytest.mark.parametrize(("places", "head"), [(150, 64), (64, 24), (7, 80)])
@pytest.mark.parametrize("queries", [1, 3, MOST_QUERIES + 1])
def test_it_is_close_to_attention_in_float32(places, head, queries):
    exact, kept = made(places=places, head=head)
    q = torch.randn(2, HEADS, queries, head) * 2
    found = attend(q, *kept)
    assert found.shape == q.shape and found.dtype == torch.float32
    assert relative(found, F.scaled_dot_product_attention(q, *exact)) < 0.04


def test_integers_hold_every_value_and_every_channel_of_keys_to_a_255th_of_its_range():
    exact, kept = made(head=24)
    assert kept[0].dtype == kept[1].dtype == torch.uint8
    keys, values = in_bfloat16(*kept)
    for found, wanted, along in ((keys, exact[0], 2), (values, exact[1], 3)):
        step = (wanted.amax(dim=along, keepdim=True) - wanted.amin(dim=along, keepdim=True)) / 255
        assert ((found.float() - wanted).abs() <= step * 0.51 + wanted.abs() / 128).all()


def test_keys_and_values_that_are_all_the_same_are_found_as_they_are():
    kept = keys_values(lambda x: x.new_full((*x.shape[:2], 2 * 3 * 64), 0.5), torch.zeros(1, 70, 3 * 64), HEADS, 64)
    torch.testing.assert_close(attend(torch.randn(1, HEADS, 1, 64), *kept), torch.full((1, HEADS, 1, 64), 0.5))


def test_what_a_query_finds_depends_on_no_other_query_row_or_number_of_threads():
    kept, q = made(batch=5)[1], torch.randn(5, HEADS, 7, 64)
    together, threads = attend(q, *kept), torch.get_num_threads()
    for row in range(5):
        own = [part[row : row + 1] for part in kept]
        assert torch.equal(attend(q[row : row + 1], *own)[0], together[row])
        assert torch.equal(attend(q[row : row + 1, :, 4:5], *own)[0], together[row, :, 4:5])
    try:
        torch.set_num_threads(2)
        assert torch.equal(attend(q, *kept), together)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("beams", [1, 3])
def test_cross_attention_computes_the_same_with_integers(monkeypatch, beams):
    monkeypatch.setattr(encoder_decoder, "PIECE", 64)
    torch.manual_seed(0)
    layer = CrossAttention(128, 2).eval().requires_grad_(False)
    states, x = torch.randn(2, 150, 128) * 3, torch.randn(2 * beams, 1, 128) * 3
    kept = layer.keys_values(states)
    wanted = layer(x, [part.repeat_interleave(beams, dim=0) for part in kept])
    looks = layer.scores(x[::beams], kept, [1])
    layer.integers = True
    whole = layer.keys_values(states)
    assert sum(part.nbytes for part in whole) < 0.3 * sum(part.nbytes for part in kept)
    assert relative(layer(x, whole), wanted) < 0.03 and relative(layer.scores(x[::beams], whole, [1]), looks) < 0.01


@pytest.mark.parametrize("wrong", [RuntimeError, None])
def test_sums_that_fail_or_are_others_are_not_used(monkeypatch, wrong):
    def sums(rows, weights):
        if wrong:
            raise wrong
        return torch.zeros(*weights.shape[:3], rows.shape[-1] - int8_attention.TAIL)

    monkeypatch.setattr(int8_attention, "weighted_sums", sums)
    assert not int8_attention.works.__wrapped__()
