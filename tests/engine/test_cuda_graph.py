"""Steps played back as CUDA graphs write what steps run one by one write; only where there is such a device."""

import copy
import gc
import threading
import weakref

import pytest
import torch
from cuda_only import needs_cuda

from mmcli.engine import cuda_graph
from mmcli.engine.generate import Reading, generate
from mmcli.engine.inputs import Inputs, pad_left
from mmcli.engine.kv_cache import KVCache
from mmcli.engine.model import GenerativeModel
from mmcli.engine.sampling import Sampling
from mmcli.layers import kernels
from mmcli.layers.fusing import fuse
from mmcli.layers.gemma import DecoderConfig, GemmaDecoder
from mmcli.layers.prefix_lm import PrefixLM

needs_cuda()

WINDOW = 6


class Model(GenerativeModel):
    """A small Gemma 2 with a window; `table`, if any, is a part of each step that the host does."""

    def __init__(self, on_host: bool):
        super().__init__()
        config = DecoderConfig(
            vocabulary=70, width=32, depth=4, mlp_width=64, heads=4, key_heads=2, head_width=8, query_scale=0.35,
            attention_softcap=20.0, sliding_layers=(True, False, True, False),
        )  # fmt: skip
        self.decoder = GemmaDecoder(config)
        self.table = torch.randn(70, 32) if on_host else None

    def new_cache(self, batch, length):
        return KVCache(4, batch, length, 2, 8, torch.float32, self.decoder.embedding.weight.device)

    def prefill(self, inputs, cache):
        positions = (cache.positions[:, None] + inputs.valid.long().cumsum(dim=1) - 1).clamp(min=0)
        cache.extend(inputs.valid)
        count = inputs.tokens.shape[1]
        masks = cache.causal_mask(count), cache.causal_mask(count, WINDOW)
        x = self.decoder.embed(inputs.tokens)
        x = x if self.table is None else x + self.before_step(inputs.tokens)
        return self.decoder.logits(self.decoder(x, positions, masks[0], cache, masks[1])[:, -1])

    def before_step(self, tokens):
        return None if self.table is None else self.table[tokens.cpu()].to(tokens.device)

    def step(self, tokens, cache, rows=None):
        positions = cache.positions[:, None].clone()
        cache.extend(torch.ones_like(tokens[:, None], dtype=torch.bool))
        x = self.decoder.embed(tokens[:, None])
        rows = self.before_step(tokens) if rows is None else rows
        x = x if rows is None else x + rows[:, None]
        return self.decoder.logits(self.decoder(x, positions, cache.step_mask(), cache, cache.step_mask(WINDOW))[:, -1])


@pytest.fixture(params=[False, True], ids=["all on the device", "a part on the host"])
def model(request):
    torch.manual_seed(0)
    model = Model(request.param).cuda().eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.copy_(torch.randn_like(parameter) * 0.3)
    return model


def inputs(*rows):
    return Inputs(*pad_left([list(row) for row in rows], pad=0))


def written(model, given, count=24, **settings):
    steps = list(generate(model, given, stop_ids=frozenset(), max_tokens=count, **settings))
    return [[event.id for event in step] for step in steps], [event.logprob for step in steps for event in step]


ROWS = [[5, 9, 11, 2, 8, 7], [3, 4], [8, 8, 30, 61]]


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=1.5, top_p=0.9, seed=1)])
def test_played_back_steps_equal_steps_one_by_one(model, sampling, monkeypatch):
    graphs = written(model, inputs(*ROWS), sampling=sampling)
    monkeypatch.setattr(cuda_graph, "step", lambda model, tokens, cache: model.step(tokens, cache))
    plain = written(model, inputs(*ROWS), sampling=sampling)
    assert graphs[0] == plain[0]
    assert graphs[1] == pytest.approx(plain[1], abs=1e-4)


def test_steps_through_the_kernels_write_the_same(model, monkeypatch):
    fuse(model)
    monkeypatch.setenv(kernels.SWITCH, "0")
    plain = written(model, inputs(*ROWS))
    cuda_graph._spare.clear()
    monkeypatch.setenv(kernels.SWITCH, "1")
    monkeypatch.setattr(kernels, "DTYPES", (torch.float32,))
    from mmcli.layers import decoder_step

    run, read = decoder_step.run_layers, []
    monkeypatch.setattr(decoder_step, "run_layers", lambda *given, **more: read.append(given) or run(*given, **more))
    fast = written(model, inputs(*ROWS))
    lengths = [given[2].shape[1] for given in read]
    assert lengths == [len(ROWS[0]), 1, 1]  # the prompt, and a step once aside and once recorded
    assert fast[0] == plain[0]
    assert fast[1] == pytest.approx(plain[1], abs=1e-4)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_a_device_that_is_not_the_current_one_writes_the_same(model):
    first = written(model, inputs(*ROWS))
    other = copy.deepcopy(model).to("cuda:1")
    second = written(other, inputs(*ROWS))
    assert first[0] == second[0] and first[1] == pytest.approx(second[1], abs=1e-4)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_what_another_device_writes_is_read_when_it_has_arrived():
    logits = torch.randn(3, 70)
    there, expected = logits.to("cuda:1"), logits.argmax(-1).tolist()
    Reading(there, there.argmax(-1))  # its kernels are loaded
    with torch.cuda.device("cuda:1"):
        torch.cuda._sleep(500_000_000)  # cycles, a quarter of a second
    assert torch.cuda.current_device() == 0
    reading = Reading(there, there.argmax(-1))
    assert [event.id for event in reading.events([0, 1, 2], {0, 1, 2})] == expected


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_kernels_run_on_the_current_device_only():
    assert kernels.available(torch.device("cuda:0")) and not kernels.available(torch.device("cuda:1"))
    with torch.cuda.device("cuda:1"):
        assert kernels.available(torch.device("cuda:1")) and not kernels.available(torch.device("cuda:0"))


def test_the_next_batch_uses_the_same_graph_and_writes_its_own_answer(model):
    first = written(model, inputs(*ROWS))
    cache = cuda_graph._spare[model]
    graph = cache.graph
    other = written(model, inputs([1], [2, 3, 4, 5, 6, 7, 8, 9], [3]))
    assert cuda_graph._spare[model].graph is graph
    assert written(model, inputs(*ROWS)) == first != other


def test_a_graph_that_is_garbage_is_not_freed_while_a_step_is_recorded(model, monkeypatch):
    """The device allows that no thread which records."""
    first = written(model, inputs(*ROWS))
    own, limits = Model.step, gc.get_threshold()
    garbage = [cuda_graph._spare.pop(model).graph]

    def step(self, *given):
        if torch.cuda.is_current_stream_capturing() and garbage:
            cycle = [garbage.pop()]
            cycle.append(cycle)
            del cycle
            gc.set_threshold(1)
            assert len([[] for _ in range(1000)]) == 1000
        return own(self, *given)

    monkeypatch.setattr(Model, "step", step)
    try:
        assert written(model, inputs(*ROWS)) == first and not garbage
    finally:
        gc.set_threshold(*limits)


def test_an_answer_broken_off_leaves_the_next_one_whole(model):
    first = written(model, inputs(*ROWS))
    steps = generate(model, inputs([9] * 12, [8] * 12, [7]), stop_ids=frozenset(), max_tokens=24)
    next(steps), next(steps)
    steps.close()
    assert written(model, inputs(*ROWS)) == first


def test_going_on_in_a_kept_cache_equals_from_the_start(model):
    cache = model.new_cache(1, 1)
    first = [ids[0] for ids in written(model, inputs(ROWS[0]), cache=cache)[0]]
    second = written(model, inputs([first[-1], 20, 21]), cache=cache)[0]
    assert cache.length == len(ROWS[0]) + 23 + 3 + 23
    fresh = model.new_cache(1, 256)
    model.prefill(inputs(ROWS[0]).to(torch.device("cuda"), torch.float32), fresh)
    for id in [*first, 20, 21]:
        logits = model.step(torch.tensor([id], device="cuda"), fresh)
    for written_next in second:
        assert written_next == [logits.argmax().item()]
        logits = model.step(logits.argmax(dim=-1), fresh)


def test_a_cache_that_has_grown_records_its_step_anew(model):
    """The old recording reads and writes the memory from before, in which the tokens read since do not stand."""
    cache, fresh = model.new_cache(1, 64), model.new_cache(1, 256)
    first = [ids[0] for ids in written(model, inputs(ROWS[0]), 8, cache=cache)[0]]
    recorded, before = cache.graph, cache.store.data_ptr()
    assert recorded is not None and cache.capacity == 64
    cache.grow(65)
    assert cache.capacity == 128 and cache.store.data_ptr() != before and cache.graph is None
    more = [first[-1], 20, 21]
    second = [ids[0] for ids in written(model, inputs(more), 20, cache=cache)[0]]
    assert cache.graph is not None and cache.graph is not recorded and cache.capacity == 128
    device = torch.device("cuda")
    with torch.inference_mode():
        logits = model.prefill(inputs(ROWS[0] + first[:-1] + more).to(device, torch.float32), fresh)
        expected = []
        for _ in second:
            expected.append(logits.argmax().item())
            logits = model.step(logits.argmax(dim=-1), fresh)
    assert second == expected


@torch.inference_mode()
def test_rows_come_and_go_without_a_wait_for_the_device(model):
    """Else the device has nothing to do whenever the host goes on."""
    cache, group = model.new_cache(3, 40), model.new_cache(2, 3)
    device = torch.device("cuda")
    model.prefill(inputs(*ROWS).to(device, torch.float32), cache)
    model.prefill(inputs([9, 8, 7], [6, 5]).to(device, torch.float32), group)
    torch.cuda.set_sync_debug_mode("error")
    try:
        cache.release(1)
        cache.insert([1], group, range(1, 2))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert cache.positions.tolist() == [6, 2, 4] and cache.valid[1, : cache.length].sum() == 2


class Reader(PrefixLM):
    """Images become soft tokens by one layer."""

    def __init__(self):
        config = DecoderConfig(
            vocabulary=70, width=32, depth=2, mlp_width=64, heads=4, key_heads=2, head_width=8, query_scale=0.35
        )
        super().__init__(config, image_token=64)
        self.see = torch.nn.Linear(3, 32)

    def soft_tokens(self, pixels):
        return self.see(pixels.flatten(2).transpose(1, 2))


@torch.inference_mode()
def test_prompts_of_one_shape_are_recorded_once_and_each_is_read_as_it_is():
    torch.manual_seed(0)
    model = Reader().cuda().eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.copy_(torch.randn_like(parameter) * 0.3)
    cache = model.new_cache(2, 40)

    def prompt(number, *rows):
        tokens, valid = pad_left([[64] * 4 + row for row in rows], pad=0)
        images = tuple(torch.randn(3, 2, 2) + number for _ in rows)
        return Inputs(tokens, valid, images).to(torch.device("cuda"), torch.float32)

    played_back = 0
    for number in range(6):
        given = prompt(number, [number + 1, 9, 11], [3] * (1 + number % 3)) if number != 3 else prompt(3, [5] * 7, [4])
        cache.truncate(0)
        logits = cuda_graph.prefill(model, given, cache)
        found = cuda_graph.likeliest(cache, logits)
        assert (found is not None) == any(cache.prefills.values()) if number != 3 else found is None
        assert found is None or torch.equal(found[0], logits.argmax(dim=-1))
        logits = logits.clone()
        fresh = model.new_cache(2, 40)
        torch.testing.assert_close(logits, model.prefill(given, fresh), rtol=1e-4, atol=1e-4)
        assert cache.length == fresh.length and torch.equal(cache.positions, fresh.positions)
        tokens = torch.tensor([7, number], device="cuda")
        torch.testing.assert_close(model.step(tokens, cache), model.step(tokens, fresh), rtol=1e-4, atol=1e-4)
        played_back += any(cache.prefills.values())
    assert played_back == 5 and len(cache.prefills) == 2


@pytest.mark.parametrize("model", [False], indirect=True, ids=["all on the device"])
@pytest.mark.parametrize(
    "most, more, free, recorded", [(8, 8, 0, True), (7, 8, 1 << 40, True), (7, 8, 0, False), (7, 7, 1 << 40, False)]
)
@torch.inference_mode()
def test_long_prompts_are_recorded_where_there_is_memory(model, most, more, free, recorded, monkeypatch):
    monkeypatch.setattr(Model, "prefill_records", True)
    monkeypatch.setattr(cuda_graph, "MOST_TOKENS", most)
    monkeypatch.setattr(cuda_graph, "MORE_TOKENS", more)
    torch.zeros(1 << 20, device="cuda")  # memory that was taken before
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 1 << 40))
    device, cache = torch.device("cuda"), model.new_cache(2, 40)
    for _ in range(3):
        cache.truncate(0)
        given = inputs([3, 9, 11, 2], [5, 6, 7, 8]).to(device, torch.float32)
        fresh = model.new_cache(2, 40)
        torch.testing.assert_close(
            cuda_graph.prefill(model, given, cache), model.prefill(given, fresh), rtol=1e-4, atol=1e-4
        )
    assert any(cache.prefills.values()) == recorded


@pytest.mark.parametrize("model", [False], indirect=True, ids=["all on the device"])
@torch.inference_mode()
def test_a_prompt_behind_what_a_cache_holds_is_not_played_back(model, monkeypatch):
    """What was recorded reads into an empty cache: it would write over the tokens that are there."""
    monkeypatch.setattr(Model, "prefill_records", True)
    device, cache, fresh = torch.device("cuda"), model.new_cache(1, 40), model.new_cache(1, 40)
    for number in range(3):
        cache.truncate(0)
        cuda_graph.prefill(model, inputs([number, 9, 11, 2]).to(device, torch.float32), cache)
    assert any(cache.prefills.values())
    model.prefill(inputs([2, 9, 11, 2]).to(device, torch.float32), fresh)
    more = inputs([3, 8, 30, 61]).to(device, torch.float32)
    torch.testing.assert_close(cuda_graph.prefill(model, more, cache), model.prefill(more, fresh), rtol=1e-4, atol=1e-4)
    assert cache.length == fresh.length == 8


@torch.inference_mode()
def test_a_thread_that_used_no_library_yet_records_what_another_has_called():
    """Each has its handles of cuBLAS and cuDNN, and to make them while a graph is recorded breaks that off."""
    layers = torch.nn.Sequential(torch.nn.Conv1d(3, 8, 3), torch.nn.Flatten(), torch.nn.Linear(48, 5)).cuda()
    inputs = torch.randn(4, 2, 3, 8, device="cuda")
    found = []

    def encode(x):
        with torch.inference_mode():
            found.append(cuda_graph.encode(layers, lambda x: [layers(x)], x)[0])

    for x in inputs:
        thread = threading.Thread(target=encode, args=(x,))
        thread.start()
        thread.join()
    torch.testing.assert_close(torch.stack(found), torch.stack([layers(x) for x in inputs]))


def test_a_models_memory_goes_with_it():
    model = Model(on_host=False).cuda().eval().requires_grad_(False)
    written(model, inputs(*ROWS))
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
