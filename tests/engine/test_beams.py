"""Beam search on a model whose every probability is written down."""

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import nn
from written_model import WrittenModel

from mmcli.engine.beams import beam_search
from mmcli.engine.generate import generate
from mmcli.engine.inputs import Inputs
from mmcli.engine.kv_cache import keep_rows

END = 3
VOCABULARY = 5


class Bigrams(WrittenModel):
    """The next token depends on the row's first token and on the one before; the cache remembers the first."""

    def __init__(self, seed: int):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.table = nn.Parameter(torch.randn(VOCABULARY, VOCABULARY, VOCABULARY, generator=generator) * 2)

    def logits_behind(self, written):
        return self.table[written[:, 0], written[:, -1]].detach().clone()


def rows(*tokens: int) -> Inputs:
    prompt = torch.tensor([[token] for token in tokens])
    return Inputs(prompt, torch.ones_like(prompt, dtype=torch.bool))


def search(model, inputs, beams, steps=6, **more):
    return beam_search(model, inputs, stop_ids=frozenset({END}), max_tokens=steps, beams=beams, **more)


@pytest.mark.parametrize("seed", range(8))
def test_one_beam_is_greedy(seed):
    model, inputs = Bigrams(seed), rows(0, 1, 2, 4)
    events = [event for step in generate(model, inputs, stop_ids=frozenset({END}), max_tokens=6) for event in step]
    for row, answer in enumerate(search(model, inputs, 1)):
        own = [event for event in events if event.row == row]
        assert list(answer.ids) == [event.id for event in own if event.id != END]
        assert answer.ended == (own[-1].id == END)
        assert answer.logprobs == pytest.approx([event.logprob for event in own], abs=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_enough_beams_find_the_best_answer_of_all(seed):
    model = Bigrams(seed)
    found = search(model, rows(1), 400, steps=4)[0]
    logprobs = model.table.log_softmax(-1)[1].tolist()
    scores = {}
    for length in range(1, 5):
        for ids in product([0, 1, 2, 4], repeat=length):
            path = [1, *ids, END] if length < 4 else [1, *ids]
            scores[ids] = sum(logprobs[a][b] for a, b in zip(path, path[1:], strict=False)) / length
    scores[()] = logprobs[1][END]
    assert found.logprob / max(1, len(found.ids)) == pytest.approx(max(scores.values()), abs=1e-4)


@pytest.mark.parametrize("beams", [1, 2, 3, 5])
def test_a_batch_equals_its_singles(beams):
    model = Bigrams(3)
    together = search(model, rows(0, 1, 2, 4), beams, steps=9)
    for answer, token in zip(together, (0, 1, 2, 4), strict=True):
        alone = search(model, rows(token), beams, steps=9)[0]
        assert alone.ids == answer.ids and alone.logprob == pytest.approx(answer.logprob, abs=1e-4)


def test_answers_beyond_the_number_of_beams_do_not_count():
    """Three answers end, one more than there are beams; those that have not ended are no better for that."""
    model = Bigrams(0)
    model.table.data[0] = torch.tensor(
        [
            [0.005, 0.33, 0.32, 0.34, 0.005],  # the first token: END is likeliest
            [0.01, 0.48, 0.005, 0.5, 0.005],  # after 1: END, then 1
            [0.01, 0.005, 0.48, 0.5, 0.005],  # after 2: END, then 2
            [0.2] * VOCABULARY,
            [0.2] * VOCABULARY,
        ]
    ).log()
    [answer] = search(model, rows(0), 2)
    assert (answer.ids, answer.ended) == ((), True)
    assert answer.logprob == pytest.approx(math.log(0.34), abs=1e-4)


def test_rules_see_what_each_beam_wrote():
    def never_twice(logits, written, owners):
        for row, ids in zip(logits, written, strict=True):
            row[ids] = -torch.inf
        return logits

    for answer in search(Bigrams(5), rows(0, 1), 3, rules=never_twice):
        assert len(set(answer.ids)) == len(answer.ids)


@pytest.mark.parametrize("beams", [1, 2, 3])
def test_rules_know_whose_tokens_they_see(beams):
    def never_its_number(logits, written, owners):
        for row, ids, owner in zip(logits, written, owners, strict=True):
            assert owner not in ids
            row[owner] = -torch.inf
        return logits

    found = search(Bigrams(5), rows(0, 1, 2), beams, steps=8, rules=never_its_number)
    assert all(number not in answer.ids for number, answer in enumerate(found))


@pytest.mark.parametrize("drop_ended", [False, True])
def test_rows_that_ended_may_leave_the_forward_pass(drop_ended):
    model, inputs = Bigrams(6), rows(0, 1, 2, 4, 1)
    plain = list(generate(model, inputs, stop_ids=frozenset({END}), max_tokens=12))
    seen: list[int] = []

    def watch(logits, written, owners):
        seen.append(len(owners))
        return logits

    found = list(generate(model, inputs, stop_ids=frozenset({END}), max_tokens=12, rules=watch, drop_ended=drop_ended))
    assert [[event.id for event in step] for step in found] == [[event.id for event in step] for step in plain]
    assert [[event.row for event in step] for step in found] == [[event.row for event in step] for step in plain]
    assert seen == ([len(step) for step in plain] if drop_ended else [5] * len(plain))


@pytest.mark.parametrize("kept", [[0, 1, 2, 3], [0, 1], [0, 3], [3, 1], [1, 0], [2, 2], [0, 0, 1, 1, 2]])
def test_rows_are_kept_in_the_order_asked_for(kept):
    store = torch.arange(4 * 3 * 2.0).view(4, 3, 2)
    before = store.clone()
    assert torch.equal(keep_rows(store, kept, 0, 2)[:, :2], before[kept][:, :2])


class Favour:
    """Adds to the logit of one token as often as it is written, and forbids another."""

    def __init__(self, favoured: int, forbidden: int, by: float):
        self.favoured, self.forbidden, self.by = favoured, forbidden, by

    def begin(self, device, context=None):
        return torch.zeros(2, 1)

    def restrict(self, logits, states):
        logits = logits.clone()
        logits[:, self.favoured] += self.by
        logits[:, self.forbidden] = -torch.inf
        return logits

    def advance(self, states, tokens):
        return states


@pytest.mark.parametrize("beams", [1, 3, 60])
def test_a_processor_s_favour_counts_in_the_choice_and_not_in_log_probabilities(beams):
    model, inputs = Bigrams(2), rows(1, 4)
    favour = Favour(favoured=2, forbidden=0, by=2.5)
    found = search(model, inputs, beams, steps=4, processor=favour)
    again = search(model, replace(inputs, processor=favour), beams, steps=4)
    assert [one.ids for one in again] == [one.ids for one in found]
    logprobs = model.table.log_softmax(-1)
    for one, first in zip(found, (1, 4), strict=True):
        path = [first, *one.ids] + [END] * one.ended
        own = [logprobs[first, a, b].item() for a, b in zip(path, path[1:], strict=False)]
        assert list(one.logprobs) == pytest.approx(own, abs=1e-4)
        assert 0 not in one.ids
    if beams == 60:
        scores = {}
        for length in range(1, 5):
            for ids in product([1, 2, 4], repeat=length):
                path = [1, *ids] + [END] * (length < 4)
                own = sum(logprobs[1, a, b].item() for a, b in zip(path, path[1:], strict=False))
                scores[ids] = (own + 2.5 * ids.count(2)) / length
        assert found[0].ids == max(scores, key=scores.__getitem__)
