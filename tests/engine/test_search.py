"""The rules of a published search: what may not stand twice, and what an answer begins with."""

import random

import pytest
import torch

from mmcli.engine.search import Search, WritingRules


def banned(written: list[int], length: int) -> set[int]:
    """The tokens that would make some `length` tokens stand twice."""
    there = {tuple(written[i : i + length]) for i in range(len(written) - length + 1)}
    return {token for token in range(5) if (*written[len(written) - length + 1 :], token) in there}


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_nothing_stands_twice(length):
    draw, logits = random.Random(length), torch.randn(2, 5)
    rules = WritingRules(Search(no_repeat=length), 4, 2)
    states = rules.begin(torch.device("cpu"))
    rows, seen = [[4], [4]], 0
    for _ in range(40):
        allowed = rules.restrict(logits, states)
        for row, own in enumerate(rows):
            forbidden = banned(own, length)
            seen += len(forbidden)
            expected = [-torch.inf if token in forbidden else logits[row, token].item() for token in range(5)]
            assert allowed[row].tolist() == expected
        tokens = torch.tensor([draw.randrange(3) for _ in rows])
        states = rules.advance(states, tokens)
        rows = [[*own, token] for own, token in zip(rows, tokens.tolist(), strict=True)]
    assert seen > 40


def test_the_first_token_is_forced_and_costs_nothing():
    logits = torch.randn(3, 5)
    rules = WritingRules(Search(first=2), 4, 3)
    states = rules.begin(torch.device("cpu"))
    allowed = rules.restrict(logits, states)
    assert allowed.argmax(1).tolist() == [2, 2, 2] and allowed.isneginf().sum() == 12
    torch.testing.assert_close(allowed[:, 2] - logits.logsumexp(1), torch.zeros(3))
    assert torch.equal(rules.restrict(logits, rules.advance(states, torch.tensor([2, 2, 2]))), logits)
