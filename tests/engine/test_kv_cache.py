"""The cache: going on after what it holds, forgetting, growing, and a step of fixed shape as CUDA graphs need it."""

import pytest
import torch

from mmcli.engine.generate import generate
from mmcli.engine.inputs import Inputs, pad_left
from mmcli.engine.kv_cache import KVCache
from mmcli.engine.model import GenerativeModel
from mmcli.engine.row_state import RowState
from mmcli.layers.gemma import DecoderConfig, GemmaDecoder

ROWS = [[5, 9, 11, 2, 8, 7], [3, 4], [8, 8, 30, 61]]


class CausalModel(GenerativeModel):
    """A Gemma 2 decoder that reads causally, through a window in every other layer, behind whatever the cache holds."""

    WINDOW = 5

    def __init__(self):
        super().__init__()
        config = DecoderConfig(
            vocabulary=70, width=32, depth=4, mlp_width=64, heads=4, key_heads=2, head_width=8, query_scale=0.35,
            sliding_layers=(True, False, True, False),
        )  # fmt: skip
        self.decoder = GemmaDecoder(config)

    def new_cache(self, batch, length):
        return KVCache(4, batch, length, 2, 8, torch.float32, torch.device("cpu"))

    def prefill(self, inputs, cache):
        positions = (cache.positions[:, None] + inputs.valid.long().cumsum(dim=1) - 1).clamp(min=0)
        cache.extend(inputs.valid)
        count = inputs.tokens.shape[1]
        masks = cache.causal_mask(count), cache.causal_mask(count, self.WINDOW)
        x = self.decoder.embed(inputs.tokens)
        return self.decoder.logits(self.decoder(x, positions, masks[0], cache, masks[1])[:, -1])

    def step(self, tokens, cache):
        positions = cache.positions[:, None].clone()
        cache.extend(torch.ones_like(tokens[:, None], dtype=torch.bool))
        x = self.decoder.embed(tokens[:, None])
        hidden = self.decoder(x, positions, cache.step_mask(), cache, cache.step_mask(self.WINDOW))
        return self.decoder.logits(hidden[:, -1])


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(5)
    model = CausalModel().eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.copy_(torch.randn_like(parameter) * 0.3)
    return model


def inputs(*rows):
    return Inputs(*pad_left([list(row) for row in rows], pad=0))


def test_reading_in_parts_equals_reading_at_once(model):
    whole, parts = model.new_cache(3, 20), model.new_cache(3, 20)
    added = [[1, 2, 3, 4, 5, 6, 7], [9, 8, 7, 6, 5, 4, 3], [7] * 7]
    expected = model.prefill(inputs(*(a + b for a, b in zip(ROWS, added, strict=True))), whole)
    model.prefill(inputs(*ROWS), parts)
    found = model.prefill(inputs(*added), parts)
    torch.testing.assert_close(found, expected)
    assert torch.equal(parts.positions, whole.positions)


def test_a_step_of_fixed_shape_equals_one_that_grows(model):
    plain, fixed = model.new_cache(3, 24), model.new_cache(3, 24)
    for cache in (plain, fixed):
        model.prefill(inputs(*ROWS), cache)
    fixed.fixed = True
    for step in range(8):
        tokens = torch.tensor([step + 1, 2 * step, 40 - step])
        fixed.cursor.fill_(plain.length)
        torch.testing.assert_close(model.step(tokens, fixed), model.step(tokens, plain))
    assert torch.equal(fixed.valid, plain.valid) and torch.equal(fixed.positions, plain.positions)


def test_what_is_truncated_leaves_no_trace(model):
    cache, fresh = model.new_cache(3, 20), model.new_cache(3, 20)
    for one in (cache, fresh):
        model.prefill(inputs(*ROWS), one)
    model.prefill(inputs([1, 2], [3, 4], [5, 6]), cache)
    cache.truncate(fresh.length)
    tokens = torch.tensor([7, 8, 9])
    torch.testing.assert_close(model.step(tokens, cache), model.step(tokens, fresh))


def test_growing_keeps_what_is_there_and_at_least_doubles(model):
    small, large = model.new_cache(3, 6), model.new_cache(3, 30)
    for cache in (small, large):
        model.prefill(inputs(*ROWS), cache)
    small.grow(6)
    assert small.capacity == 6
    small.grow(8)
    assert small.capacity == 12
    tokens = torch.tensor([7, 8, 9])
    torch.testing.assert_close(model.step(tokens, small), model.step(tokens, large))


def extend(cache):
    cache.extend(torch.ones(3, 1, dtype=torch.bool))


STEPS = {
    "more room": lambda cache: cache.grow(cache.capacity + 1),
    "room that is there": lambda cache: cache.grow(cache.capacity),
    "fewer rows": lambda cache: cache.keep([0, 2]),
    "rows in another order": lambda cache: cache.keep([2, 0, 1]),
    "more rows": lambda cache: cache.keep([0, 0, 1, 2]),
    "forgetting": lambda cache: cache.truncate(2),
    "another token": extend,
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_a_recorded_step_never_outlives_the_memory_it_was_recorded_in(model, step):
    """A CUDA graph reads and writes addresses: where one of them, or a shape, is another it would read freed memory."""

    def memory():
        tensors = (cache.store, cache.valid, cache.positions, cache.cursor)
        return [(tensor.data_ptr(), tuple(tensor.shape)) for tensor in tensors]

    cache = model.new_cache(3, 10)
    model.prefill(inputs(*ROWS), cache)
    cache.graph, before = object(), memory()
    held = cache.store, cache.valid, cache.positions  # so that new memory is elsewhere
    step(cache)
    assert (cache.graph is None) == (memory() != before)
    del held


def test_more_than_the_room_is_refused(model):
    with pytest.raises(ValueError, match="holds 3 tokens, 6 were asked for"):
        model.prefill(inputs(*ROWS), model.new_cache(3, 3))


def test_generating_in_a_kept_cache_equals_generating_from_the_start(model):
    settings = {"stop_ids": frozenset(), "max_tokens": 6}
    cache = model.new_cache(1, 1)
    first = [step[0].id for step in generate(model, inputs(ROWS[0]), cache=cache, **settings)]
    assert cache.length == len(ROWS[0]) + 5  # the last token written is not read yet
    second = [step[0].id for step in generate(model, inputs([first[-1], 20, 21]), cache=cache, **settings)]
    anew = [step[0].id for step in generate(model, inputs(ROWS[0] + first + [20, 21]), **settings)]
    assert second == anew


# -- rows that come and go ---------------------------------------------------------------------------------------


def alone(model, prompt, steps):
    """The greedy answer to one prompt, a batch of its own."""
    settings = {"stop_ids": frozenset(), "max_tokens": steps}
    return [step[0].id for step in generate(model, inputs(prompt), **settings)]


@torch.inference_mode()
def continuous(model, jobs, rows, capacity):
    """Greedy answers to `jobs`, (prompt, steps) each: a row that is done makes room for the next job at once."""
    waiting, answers = list(enumerate(jobs)), [[] for _ in jobs]
    cache, running = model.new_cache(rows, capacity), [None] * rows
    tokens = torch.zeros(rows, dtype=torch.long)
    while waiting or any(job is not None for job in running):
        for row in range(rows):
            if running[row] is None and waiting:
                running[row], (prompt, _) = waiting.pop(0)
                prefilled = model.new_cache(1, len(prompt))
                tokens[row] = model.prefill(inputs(prompt), prefilled).argmax(-1)
                cache.insert([row], prefilled)
                answers[running[row]].append(int(tokens[row]))
            if running[row] is not None and len(answers[running[row]]) == jobs[running[row]][1]:
                running[row] = None
                cache.release(row)
        if cache.length == cache.capacity:
            cache.compact()
        tokens = model.step(tokens, cache).argmax(-1)
        for row, job in enumerate(running):
            if job is not None and len(answers[job]) < jobs[job][1]:
                answers[job].append(int(tokens[row]))
    return answers, cache


def test_a_row_inserted_into_a_running_batch_writes_what_it_writes_alone(model):
    """Prompts longer and shorter than what the others have so far, answers of any length, rows that take turns."""
    prompts = [ROWS[1], ROWS[0], [7], ROWS[2] * 4, [1, 2], ROWS[0] * 3, [40, 41, 42], ROWS[1] * 2, [3]]
    jobs = list(zip(prompts, [9, 4, 12, 3, 7, 6, 1, 15, 5], strict=True))
    expected = [alone(model, *job) for job in jobs]
    assert len({tuple(answer) for answer in expected}) == len(jobs)
    for rows in (1, 2, 3):
        answers, cache = continuous(model, jobs, rows, capacity=34)
        assert answers == expected, rows
        assert cache.capacity == 34  # rows that are done leave room, so that it never has to grow


def test_a_row_with_a_context_cannot_join_rows_without():
    other = KVCache(4, 1, 5, 2, 8, torch.float32, torch.device("cpu"))
    other.context = RowState()
    with pytest.raises(ValueError, match="with a context cannot join"):
        KVCache(4, 2, 9, 2, 8, torch.float32, torch.device("cpu")).insert([1], other)


def test_an_inserted_row_leaves_the_others_as_they_are(model):
    with torch.inference_mode():
        cache, fresh = model.new_cache(2, 8), model.new_cache(2, 8)
        for one in (cache, fresh):
            model.prefill(inputs(*ROWS[1:]), one)
        longer = model.new_cache(1, 12)
        model.prefill(inputs(ROWS[0] * 2), longer)
        cache.insert([0], longer)
        assert cache.positions.tolist() == [12, 4] and cache.length == 12 and cache.capacity >= 12
        cache.grow(14)
        for token in (5, 6):
            tokens = torch.tensor([token, token])
            together, apart = model.step(tokens, cache), model.step(tokens, fresh)
            torch.testing.assert_close(together[1], apart[1])
            torch.testing.assert_close(together[:1], model_step(model, longer, token))


def model_step(model, cache, token):
    cache.grow(cache.length + 1)
    return model.step(torch.tensor([token]), cache)


def test_rows_lean_on_prefixes_of_another_type_until_nobody_reads_these():
    prefix = torch.randn(2, 2, 3, 1, 4, 8).bfloat16()
    before = prefix.clone()
    cache = KVCache(2, 4, 10, 1, 8, torch.float32, torch.device("cpu"), shareable=True, ahead=4)
    assert cache.capacity == 10 and cache.store.shape[-2] == 6
    cache.extend(torch.ones(4, 4, dtype=torch.bool))
    cache.lean_on(prefix, [0, 1, 1, 2])
    cache.extend(torch.ones(4, 1, dtype=torch.bool))
    k = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 1, 8)
    assert torch.equal(cache.append(1, k, k)[0], k)
    assert cache.groups is not None and cache.groups.rows.tolist() == [0, 0, 1, 2, 3, 0]
    assert cache.groups.places.tolist() == [0, 2, 3, 4]
    cache.share()  # which is done already
    cache.keep([3, 1, 2], shared_rows=[2, 1])
    assert cache.prefix(0)[0].shape[0] == 3 and cache.groups.rows.tolist() == [0, 0, 1, 2, 0, 0]
    assert cache.append(1, k[:3] + 1, k[:3] + 1)[0][:, 0, 0, 0].tolist() == [1, 2, 3]  # the place of the last token
    cache.keep([1, 2])
    assert torch.equal(cache.prefix(1)[1], before[1, 1, 1:2]) and cache.groups is None
    assert torch.equal(prefix, before), "it is not the cache's own"


def test_room_is_where_keys_and_values_are_appended():
    cache = KVCache(2, 1, 9, 2, 4, torch.float32, torch.device("cpu"), shareable=True)
    for count in (3, 2):
        cache.extend(torch.ones(1, count, dtype=torch.bool))
        k, v = torch.randn(2, 1, 2, count, 4)
        cache.append(1, k, v)
        keys, values = cache.room(1, count)
        assert torch.equal(keys, k) and torch.equal(values, v)
        assert keys.data_ptr() == cache.store[1, 0, 0, 0, cache.length - count].data_ptr()
    cache.share()
    assert cache.room(1, 2) is None
