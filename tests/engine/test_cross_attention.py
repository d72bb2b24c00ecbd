"""Keys and values of an encoder: rows that are kept, restored, inserted, in whatever layout they have."""

import pytest
import torch

from mmcli.engine.cross_attention import CrossAttentionKV

LAYERS, HEADS, WIDTH = 2, 3, 4


def encoded(*lengths, transposed=False, masked=True, seed=0):
    """Random keys and values of rows with so many places each, zeros behind the shorter."""
    torch.manual_seed(seed)
    longest = max(lengths)
    valid = torch.arange(longest) < torch.tensor(lengths)[:, None]
    parts = [torch.randn(len(lengths), HEADS, longest, WIDTH) * valid[:, None, :, None] for _ in range(2 * LAYERS)]
    if transposed:
        parts[1::2] = [part.mT.contiguous().mT for part in parts[1::2]]
    return CrossAttentionKV(list(zip(parts[::2], parts[1::2], strict=True)), valid if masked else None)


def same(one, other, rows):
    """Whether `one` is rows of `other`, which is as it was made."""
    mine, theirs = ([part for layer in layers for part in layer] for layers in (one.layers, other.whole))
    return all(torch.equal(part, whole[rows]) for part, whole in zip(mine, theirs, strict=True))


@pytest.mark.parametrize("transposed", [False, True], ids=["H fastest", "S fastest"])
def test_rows_are_kept_restored_and_chosen(transposed):
    first, lengths = encoded(5, 3, 4, 5, transposed=transposed), [5, 3, 4, 5]
    cross = encoded(*lengths, transposed=transposed)
    strides = [part.stride() for layer in cross.whole for part in layer]
    cross.keep([0, 3, 2])
    assert same(cross, first, [0, 3, 2]) and cross.valid.sum(1).tolist() == [5, 5, 4]
    cross.keep([2, 1])
    assert same(cross, first, [2, 3]) and cross.mask().shape == (2, 1, 1, 5)
    chosen, one = cross.rows([1, 3]), cross.one(1)
    assert same(chosen, first, [1, 3]) and same(one, first, [1]) and one.valid.sum() == 3
    assert [part.stride()[1:] for layer in chosen.whole for part in layer] == [stride[1:] for stride in strides]
    cross.all()
    assert same(cross, first, [0, 1, 2, 3]) and cross.valid.sum(1).tolist() == lengths
    with pytest.raises(ValueError, match="only rows behind"):
        cross.keep([1, 0])


@pytest.mark.parametrize("transposed", [False, True], ids=["H fastest", "S fastest"])
@pytest.mark.parametrize("length", [2, 4, 9])
def test_a_row_of_any_length_is_inserted(length, transposed):
    cross, first = encoded(4, 3, transposed=transposed), encoded(4, 3)
    other = encoded(1, length, seed=1, transposed=transposed)
    cross.insert(1, other, 1)
    assert cross.valid.sum(1).tolist() == [4, length]
    for mine, before, theirs in zip(cross.layers, first.layers, other.layers, strict=True):
        for part, old, new in zip(mine, before, theirs, strict=True):
            assert torch.equal(part[0, :, :4], old[0]) and torch.equal(part[1, :, :length], new[1, :, :length])
            assert not part[0, :, 4:].any() and not part[1, :, length:].any()
            assert (part.stride(-1) == 1) == (old is before[0] or not transposed)


def test_rows_of_one_length_need_no_mask():
    cross, other = encoded(4, 4, masked=False), encoded(4, masked=False, seed=1)
    cross.insert(0, other)
    assert (
        cross.mask() is None
        and same(cross, other, [0]) is False
        and torch.equal(cross.layers[0][0][:1], other.layers[0][0])
    )
    with pytest.raises(ValueError, match="cannot stand side by side"):
        cross.insert(0, encoded(5, masked=False))


def test_a_row_with_nothing_to_look_at_has_no_empty_softmax():
    cross = encoded(3, 0)
    assert cross.mask()[:, 0, 0].tolist() == [[True] * 3, [True] * 3] and not cross.layers[0][1][1].any()


@pytest.mark.parametrize("transposed", [False, True], ids=["H fastest", "S fastest"])
def test_a_copy_takes_what_fits_into_its_own_memory(transposed):
    first, other = encoded(4, 2, transposed=transposed), encoded(3, 4, transposed=transposed, seed=1)
    copy = first.copied()
    assert copy.take(other) and same(copy, other, [0, 1]) and copy.mask().sum().item() == 7
    assert same(first, encoded(4, 2, transposed=transposed), [0, 1]) and first.mask().sum().item() == 6
    for unlike in (encoded(4, transposed=transposed), encoded(5, 2), encoded(4, 2, masked=False)):
        assert not copy.take(unlike) and same(copy, other, [0, 1])
    other.keep([1])
    assert other.copied() is None and not copy.take(other)
