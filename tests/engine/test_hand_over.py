"""What a played back step leaves for the next one and for the host: here playing back is doing the work again."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from mmcli.engine import cuda_graph
from mmcli.engine.generate import generate
from mmcli.engine.hand_over import SLOTS, Found
from mmcli.engine.inputs import Inputs, pad_left
from mmcli.engine.kv_cache import KVCache
from mmcli.engine.model import GenerativeModel
from mmcli.engine.sampling import Sampling

V, D = 50, 8


def chosen(logits, hand_over, way):
    """The likeliest, handed over by the "engine", or as a "kernel" does it."""
    logprobs, ids = logits.log_softmax(dim=1).max(dim=1)
    both = torch.stack((ids.float(), logprobs))
    if way == "kernel" and hand_over is not None:
        hand_over.tokens.copy_(ids)
        hand_over.cursor += 1
        hand_over.slots[hand_over.turns[0] % SLOTS] = both
        hand_over.turns += 1
        hand_over.done = True
    return Found(ids, both)


class Model(GenerativeModel):
    """What it writes depends on all tokens in the cache and where they stand."""

    def __init__(self, way):
        super().__init__()
        self.way = way
        self.table, self.head = nn.Embedding(V, D), nn.Linear(D, V)

    def new_cache(self, batch, length):
        return KVCache(1, batch, length, 1, D, torch.float32, torch.device("cpu"))

    def prefill(self, inputs, cache):
        cache.extend(inputs.valid)
        return self._read(inputs.tokens, cache)

    def step(self, tokens, cache):
        cache.extend(torch.ones_like(tokens[:, None], dtype=torch.bool))
        return self._read(tokens[:, None], cache)

    def _read(self, tokens, cache):
        x = self.table(tokens)[:, None]
        _, values = cache.append(0, x, x)
        places = torch.arange(values.shape[2]).cos()[:, None]
        seen = cache.step_mask()[:, 0, 0, : values.shape[2], None]
        return self.head((values[:, 0] * seen * places).sum(dim=1))

    def likeliest(self, logits, hand_over=None):
        return None if self.way == "none" else chosen(logits, hand_over, self.way)


class Rules:
    settings, tensors = None, ()

    def __init__(self, way):
        self.way = way

    def choose(self, logits, tensors, hand_over=None):
        return chosen(logits, hand_over, self.way)


class Again:
    def __init__(self, work):
        self.replay = work


@pytest.fixture
def graphs(monkeypatch):
    """The graphs that are played back."""
    played, play = [], cuda_graph.Graph.__call__

    def recorded(work, undo=None):
        work()
        if undo is not None:
            undo()
        return Again(work)

    def fixed(graph, tokens):
        played.append(graph)
        graph._cache.fixed = True
        try:
            return play(graph, tokens)
        finally:
            graph._cache.fixed = False

    monkeypatch.setattr(cuda_graph, "_recorded", recorded)
    monkeypatch.setattr(cuda_graph, "records", lambda device, what: what == "steps")
    monkeypatch.setattr(cuda_graph.Graph, "__call__", fixed)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    return played


def model_of(way):
    torch.manual_seed(0)
    return Model(way).eval().requires_grad_(False)


def written(model, count=20, **settings):
    inputs = Inputs(*pad_left([[5, 9, 11, 2], [3], [8, 30]], pad=0))
    return [list(step) for step in generate(model, inputs, max_tokens=count, **settings)]


def plainly(monkeypatch, *given, **settings):
    """The same without graphs."""
    with monkeypatch.context() as patch:
        patch.setattr(cuda_graph, "records", lambda device, what: False)
        return written(*given, **settings)


def assert_same(found, expected):
    ids = [[[(event.row, event.id) for event in step] for step in steps] for steps in (found, expected)]
    assert ids[0] == ids[1]
    logprobs = [[event.logprob for step in steps for event in step] for steps in (found, expected)]
    assert logprobs[0] == pytest.approx(logprobs[1], abs=1e-5)


WAYS = ["none", "engine", "kernel"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=1.0, seed=1)], ids=["greedy", "drawn"])
def test_steps_that_hand_over_write_what_steps_one_by_one_write(way, sampling, graphs, monkeypatch):
    found = written(model_of(way), stop_ids=frozenset(), sampling=sampling)
    assert len(graphs) == 19 and len({event.id for step in found for event in step}) > 9
    assert_same(found, plainly(monkeypatch, model_of(way), stop_ids=frozenset(), sampling=sampling))


@pytest.mark.parametrize("way", WAYS[1:])
@pytest.mark.parametrize("count", [2, 3, 20])
def test_a_choice_is_read_while_the_next_step_runs_and_nothing_behind_an_end(way, count, graphs, monkeypatch):
    rules = Rules(way)
    whole = plainly(monkeypatch, model_of(way), count, stop_ids=frozenset())
    ends = frozenset({whole[min(7, count - 1)][1].id})
    for settings in ({"stop_ids": frozenset()}, {"stop_ids": ends}, {"stop_ids": ends, "limits": [3, 12, 5]}):
        graphs.clear()
        found = written(model_of(way), count, recorded=rules, **settings)
        assert graphs
        assert_same(found, plainly(monkeypatch, model_of(way), count, **settings))
        assert len(found) - 1 <= len(graphs) <= len(found)  # one step too much at the most


@pytest.mark.parametrize("way", WAYS)
@torch.inference_mode()
def test_other_tokens_and_another_place_than_those_handed_over(way, graphs):
    model, inputs = model_of(way), Inputs(*pad_left([[5, 9, 11, 2], [3]], pad=0))
    caches = [model.new_cache(2, 16) for _ in range(2)]
    for cache in caches:
        model.prefill(inputs, cache)
    logits = None
    for turn in range(9):
        found = None if logits is None else cuda_graph.likeliest(caches[0], logits)
        tokens = torch.tensor([turn, 7]) if found is None or turn % 3 == 0 else found.ids
        plain = tokens.clone()
        if turn == 5:
            for cache in caches:
                cache.truncate(6)
        logits = cuda_graph.step(model, tokens, caches[0])
        torch.testing.assert_close(logits, model.step(plain, caches[1]))
    assert len(set(graphs)) == 1
