"""Rows that begin and end while others are written: each answer is what the row gives alone."""

from functools import cache
from types import SimpleNamespace

import pytest
import torch

from mmcli.engine import cuda_graph, joining, scheduler
from mmcli.engine.collect import complete
from mmcli.engine.inputs import Inputs, joined, pad_left
from mmcli.engine.sampling import Sampling
from mmcli.engine.scheduler import write_continuously
from mmcli.errors import ModelError
from mmcli.layers.gemma import DecoderConfig
from mmcli.layers.prefix_lm import PrefixLM

VOCABULARY, IMAGE, SOFT = 70, 64, 4
ROWS = [[5, 9, 11], [3], [8, 8, 30, 61, 2, 9], [40], [7, 7], [1, 2, 3, 4, 5], [33], [21, 20], [60, 3, 1]]
MOST = 9  # tokens


class SmallModel(PrefixLM):
    """A prefix-LM whose "images" are projected by one layer, with a window in every other layer."""

    def __init__(self):
        config = DecoderConfig(
            vocabulary=VOCABULARY, width=32, depth=4, mlp_width=64, heads=4, key_heads=2, head_width=8,
            query_scale=0.35, sliding_layers=(True, False, True, False),
        )  # fmt: skip
        super().__init__(config, image_token=IMAGE)
        self.see = torch.nn.Linear(3, 32)

    def soft_tokens(self, pixels):
        return self.see(pixels.flatten(2)[..., :SOFT].transpose(1, 2))

    def step_masks(self, cache):
        return cache.step_mask(), cache.step_mask(5)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(3)
    model = SmallModel().eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.copy_(torch.randn_like(parameter) * (0.3 if parameter.ndim > 1 else 0.1))
    return model


class Parity:
    """A logits processor: even and odd tokens take turns, beginning with what a row's own `first` says."""

    def __init__(self, first):
        self.first = first

    def begin(self, device, context=None):
        return torch.tensor([[self.first]], device=device)

    def restrict(self, logits, states):
        return logits.masked_fill(torch.arange(logits.shape[-1]) % 2 != states, -torch.inf)

    def advance(self, states, tokens):
        return 1 - states


def one(row, processor=None):
    tokens, valid = pad_left([[IMAGE] * SOFT + row], pad=0)
    image = torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(row[0]))
    return Inputs(tokens, valid, (image,), processor=processor)


def source(rows, calls=None, slow=False):
    """`take` of a list of inputs; a `slow` one has nothing at hand every other time it is asked without waiting."""
    waiting, asked = list(rows), []

    def take(count, wait):
        asked.append((count, wait))
        if slow and not wait and len(asked) % 2:
            return ()
        taken = [waiting.pop(0) for _ in range(min(count if wait or not slow else 1, len(waiting)))]
        if calls is not None:
            calls.append(len(taken))
        return taken or None

    return take


def alone(model, inputs, **settings):
    [answer] = complete(model, inputs, max_tokens=MOST, **settings)
    return answer


@pytest.fixture(scope="module")
def stop(model):
    """Tokens that end the answers at unlike lengths."""
    free = [alone(model, one(row), stop_ids=frozenset()).ids for row in ROWS]
    chosen = frozenset({free[0][2], free[3][0], free[5][4]})
    assert len({len(alone(model, one(row), stop_ids=chosen).ids) for row in ROWS}) >= 3
    return chosen


def row_inputs(restricted):
    return [one(row, Parity(i % 2) if restricted else None) for i, row in enumerate(ROWS)]


@pytest.fixture(scope="module")
def singles(model, stop):
    """What each of the rows gives alone, with such a sampling, free or restricted."""
    return cache(
        lambda sampling, restricted: [
            alone(model, row, stop_ids=stop, sampling=sampling) for row in row_inputs(restricted)
        ]
    )


@pytest.fixture(params=[False, True], ids=["", "ahead"])
def ahead(request, monkeypatch):
    """Prompts are read when there is room for their rows, as on a CPU, or before, as on a GPU, in groups of two."""
    monkeypatch.setattr(joining, "reads_ahead", lambda device: request.param)
    monkeypatch.setattr(joining, "GROUP", 2)


@pytest.mark.parametrize("slow", [False, True], ids=["", "slow"])
@pytest.mark.parametrize("places", [1, 2, 3, 20])
@pytest.mark.parametrize(
    "sampling", [{}, {"temperature": 0.9, "seed": 4}, {"temperature": 1.5, "top_p": 0.8, "seed": 1}]
)
@pytest.mark.parametrize("restricted", [False, True], ids=["free", "restricted"])
def test_every_answer_is_that_of_the_row_alone(model, stop, singles, places, sampling, restricted, slow, ahead):
    settings = {"stop_ids": stop, "sampling": Sampling(**sampling)}
    rows = source(row_inputs(restricted), slow=slow)
    found = dict(write_continuously(model, rows, places=places, max_tokens=MOST, **settings))
    assert sorted(found) == list(range(len(ROWS)))
    for number, answer in enumerate(singles(settings["sampling"], restricted)):
        assert (found[number].ids, found[number].ended) == (answer.ids, answer.ended)
        assert found[number].logprobs == pytest.approx(answer.logprobs, abs=1e-4)


def test_rows_are_handed_out_as_they_end_and_others_take_their_places(model, stop):
    calls = []
    lengths = [len(alone(model, one(row), stop_ids=stop).ids) for row in ROWS]
    order = [
        number
        for number, _ in write_continuously(
            model, source(map(one, ROWS), calls), places=3, stop_ids=stop, max_tokens=MOST
        )
    ]
    assert order != sorted(order) and lengths[order[0]] == min(lengths[:3])
    assert calls[0] == 3 and max(calls[1:]) < 3


def test_the_cache_of_a_group_is_used_again_for_another(model, monkeypatch):
    """It is kept where prompts were recorded in it, which a GPU does."""
    own, caches = cuda_graph.prefill, []

    def prefill(model, inputs, cache):
        caches.append(cache)
        cache.prefills = {"recorded": None}
        return own(model, inputs, cache)

    monkeypatch.setattr(cuda_graph, "prefill", prefill)
    rows = [one(row) for row in ([1, 2], [3, 4], [5, 6], [7, 8])]
    expected = [alone(model, row, stop_ids=frozenset()).ids for row in rows]
    caches.clear()
    found = dict(write_continuously(model, source(rows), places=1, stop_ids=frozenset(), max_tokens=MOST))
    assert [found[number].ids for number in range(len(rows))] == expected
    assert len(caches) == 4 and caches[1] is caches[2] is caches[3] is not caches[0]


def test_a_cache_that_is_full_moves_its_rows_and_grows_only_for_longer_ones(model, stop, monkeypatch):
    monkeypatch.setattr("mmcli.engine.scheduler.SLACK", 1)
    capacities = []
    own = PrefixLM.step

    def step(self, tokens, cache):
        capacities.append(cache.capacity)
        return own(self, tokens, cache)

    monkeypatch.setattr(SmallModel, "step", step)
    expected = [alone(model, one(row), stop_ids=stop).ids for row in ROWS] * 4
    rows = [one(row) for row in ROWS * 4]
    capacities.clear()
    found = dict(write_continuously(model, source(rows), places=2, stop_ids=stop, max_tokens=MOST))
    assert [found[number].ids for number in range(len(rows))] == expected
    longest = SOFT + max(map(len, ROWS)) + MOST
    assert len(capacities) > 3 * longest and max(capacities) < 3 * longest


@pytest.fixture
def work(monkeypatch):
    """How many rows every prompt, every step and the cache of every batch had, and were read before the first step."""
    rows = SimpleNamespace(read=[], steps=[], caches=[], before=0)
    prefill, step, take_cache = PrefixLM.prefill, PrefixLM.step, cuda_graph.take_cache

    def counted(self, inputs, cache):
        rows.read.append(len(inputs.tokens))
        rows.before += 0 if rows.steps else len(inputs.tokens)
        return prefill(self, inputs, cache)

    def stepped(self, tokens, cache):
        rows.steps.append(len(tokens))
        return step(self, tokens, cache)

    def taken(model, places, *more):
        rows.caches.append(places)
        return take_cache(model, places, *more)

    monkeypatch.setattr(cuda_graph, "take_cache", taken)
    monkeypatch.setattr(SmallModel, "prefill", counted)
    monkeypatch.setattr(SmallModel, "step", stepped)
    return rows


PLACES, AT_ONCE = 7, 3
DRAWN = {"sampling": Sampling(temperature=1.5, top_p=0.8, seed=1), "stop_ids": frozenset({8, 9, 30, 31})}


def in_parts(model, count, **source_settings):
    """Answers of so many rows, in their order, beside those of each alone: drawn ones, each by a rule of its own."""
    rows = [one((ROWS * 5)[i] + [i], Parity(i % 2)) for i in range(count)]
    take = source(rows, **source_settings)
    found = write_continuously(model, take, places=PLACES, at_once=AT_ONCE, max_tokens=MOST, **DRAWN)
    return [answer for _, answer in sorted(found)], rows


@pytest.mark.parametrize("slow", [False, True], ids=["", "slow"])
@pytest.mark.parametrize("count", [1, 3, 4, 6, 7, 8, 40])
def test_more_rows_are_written_at_a_time_than_are_read(model, work, count, slow, ahead):
    found, rows = in_parts(model, count, slow=slow)
    read, steps, before = list(work.read), list(work.steps), work.before
    expected = [alone(model, row, **DRAWN) for row in rows]
    assert count < 40 or len({len(answer.ids) for answer in expected}) > 3
    assert [answer.ids for answer in found] == [answer.ids for answer in expected]
    for answer, own in zip(found, expected, strict=True):
        assert answer.logprobs == pytest.approx(own.logprobs, abs=1e-4)
    assert read[0] == min(count, AT_ONCE) == max(read) and sum(read) == count
    assert max(steps) <= PLACES
    if not slow:  # all places are taken before the first step, and perhaps rows read ahead
        assert steps[0] == work.caches[0] == min(count, PLACES) <= before


def test_where_memory_has_no_room_no_more_are_written_than_are_read(model, work, monkeypatch):
    asked = []
    monkeypatch.setattr(scheduler, "has_room", lambda *given: asked.append(given))
    found, rows = in_parts(model, 20)
    assert (max(work.read), max(work.steps)) == (AT_ONCE, AT_ONCE)
    assert asked[0] == (model, PLACES, SOFT + len(ROWS[2]) + 1 + MOST - 1 + scheduler.SLACK)
    assert [answer.ids for answer in found] == [alone(model, row, **DRAWN).ids for row in rows]
    asked.clear()
    in_parts(model, AT_ONCE)
    assert not asked


def test_memory_has_room_for_a_cache_that_is_a_sixteenth_of_it(model, monkeypatch):
    free = [16 * model.new_cache(5, 60).store.nbytes]
    monkeypatch.setattr(scheduler, "free_memory", lambda device: free[0])
    on_gpu = SimpleNamespace(like=SimpleNamespace(device=torch.device("cuda")), new_cache=model.new_cache)
    assert scheduler.has_room(on_gpu, 5, 60)
    free[0] -= 1
    assert not scheduler.has_room(on_gpu, 5, 60) and scheduler.has_room(model, 5, 60)


def test_an_answer_that_leaves_the_numbers_is_an_error_and_what_ended_before_is_there(model):
    class Broken(SmallModel):
        def prefill(self, inputs, cache):
            logits = model.prefill(inputs, cache)
            return logits * torch.nan if bool((inputs.tokens == 60).any()) else logits

        def __getattr__(self, name):
            return getattr(model, name)

    broken = object.__new__(Broken)
    done = []
    with pytest.raises(ModelError, match="left the range.*weights are damaged"):
        for number, _ in write_continuously(
            broken, source(map(one, ROWS)), places=1, stop_ids=frozenset(), max_tokens=2
        ):
            done.append(number)
    assert done == list(range(len(ROWS) - 1))


def test_joined_inputs_are_padded_and_keep_their_images_in_order():
    both = joined([one(ROWS[1]), one(ROWS[2])])
    tokens, valid = pad_left([[IMAGE] * SOFT + row for row in ROWS[1:3]], pad=0)
    assert torch.equal(both.tokens, tokens) and torch.equal(both.valid, valid)
    assert torch.equal(both.images[1], one(ROWS[2]).images[0])
    with pytest.raises(ValueError, match="for a whole batch"):
        joined([Inputs(tokens, valid, context=object())])
