"""The decode loop: prefill once, then one token a row and step. It knows no family and no task."""

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from mmcli.engine import cuda_graph
from mmcli.engine.hand_over import Found
from mmcli.engine.inputs import Inputs
from mmcli.engine.kv_cache import KVCache
from mmcli.engine.logits import LogitsProcessor, RecordedRules
from mmcli.engine.model import GenerativeModel
from mmcli.engine.sampling import Sampler, Sampling
from mmcli.errors import ModelError


@dataclass(frozen=True)
class TokenEvent:
    """One token written for one row of the batch."""

    row: int
    id: int
    logprob: float  # under the model's own distribution: temperature 1, nothing cut off


# Forbids or favours: logits [R, V], what each of these R has written so far, and which row of the batch each belongs to
# → logits from which to choose, which may be the same memory written over: nobody else looks at it.
LogitRules = Callable[[Tensor, list[list[int]], list[int]], Tensor]


@torch.inference_mode()
def generate(
    model: GenerativeModel,
    inputs: Inputs,
    *,
    stop_ids: frozenset[int],
    max_tokens: int,
    sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
    rules: LogitRules | None = None,
    processor: LogitsProcessor | None = None,
    drop_ended: bool = False,
    limits: Sequence[int] | None = None,
    cache: KVCache | None = None,
    recorded: RecordedRules | None = None,
) -> Generator[list[TokenEvent]]:
    """Write up to `max_tokens` tokens for every row; yields the events of one step as a list, in row order.

    A row's stop token is its last event; after it the row is absent. A row without one was cut off by `max_tokens`,
    or by its own one of the `limits`, where there are any.

    `rules` see every step's logits first; log-probabilities are those of what the rules left. `processor` (by default
    that of `inputs`) restricts the choice behind them without changing log-probabilities, and without a wait for the
    host. Where steps are recorded and the choice is greedy, `recorded` do what `rules` do, without a wait for the host.

    With `drop_ended` the rows that ended leave the forward pass: it pays where a row costs much (cross-attention) and
    the cache is cheap to rearrange. With a `cache` it goes on behind what that holds, of the same rows: at the k-th
    step yielded, that was joined by `inputs` and k - 1 of the tokens written.

    Raises ModelError where the logits are not numbers (float16 overflows).
    """
    if max_tokens < 1:
        return
    weight = model.like
    inputs = inputs.to(weight.device, weight.dtype)
    processor = inputs.processor if processor is None else processor
    rows, prefix = inputs.tokens.shape
    length = prefix + max_tokens - 1  # the last token written is never read again, so it needs no room
    sampler = Sampler(sampling, rows, max_tokens, weight.device)
    drop_ended = drop_ended and weight.device.type != "cuda"  # there a step costs the same, and rows keep their graph
    write = partial(_write, model, inputs, stop_ids, sampler, max_tokens, rules, processor, drop_ended, limits)
    if cache is not None:
        cache.grow(cache.length + length)
        yield from write(cache=cache, own=False)
        return
    cache = cuda_graph.take_cache(model, rows, length, weight.device)
    records = processor is None and sampling.greedy and max_tokens > 1 and cuda_graph.records(weight.device, "steps")
    try:
        if records and recorded is not None:
            yield from _write_recorded(model, inputs, cache, stop_ids, max_tokens, recorded, limits)
        else:
            yield from write(cache=cache, own=True)
    finally:
        cuda_graph.give_back(model, cache)


def _write(
    model: GenerativeModel,
    inputs: Inputs,
    stop_ids: frozenset[int],
    sampler: Sampler,
    max_tokens: int,
    rules: LogitRules | None,
    processor: LogitsProcessor | None,
    drop_ended: bool,
    limits: Sequence[int] | None,
    *,
    cache: KVCache,
    own: bool,
) -> Generator[list[TokenEvent]]:
    """The loop of `generate`, in a cache that has room; in its `own` one it may read a token more than it yields."""
    rows_held = list(range(inputs.tokens.shape[0]))  # which row of the batch stands where in the forward pass
    running = set(rows_held)
    written: list[list[int]] = [[] for _ in rows_held]
    runs_ahead = own and rules is None and inputs.tokens.is_cuda and not cuda_graph.waits(model, inputs.tokens[:, -1])
    plain = rules is None and processor is None and sampler.sampling.greedy
    logits = own_copy(cuda_graph.prefill(model, inputs, cache), rules)
    states = None if processor is None else processor.begin(inputs.tokens.device, cache.context)
    for step in range(max_tokens):
        if rules is not None:
            logits = rules(logits, [written[row] for row in rows_held], rows_held)
        found = (cuda_graph.likeliest(cache, logits) or model.likeliest(logits)) if plain else None
        if found is not None:
            chosen = found.ids
        elif processor is None or states is None:
            chosen = sampler.choose(logits, step, rows_held)
        else:
            chosen = sampler.choose(processor.restrict(logits, states), step, rows_held)
            states = processor.advance(states, chosen)
        reading = Reading(logits, chosen, found)
        last = step == max_tokens - 1
        # The device need not wait until the host has read what it wrote; but no first token waits for a recording.
        ahead = runs_ahead and not last and cuda_graph.is_recorded(cache)
        if ahead:
            logits = cuda_graph.step(model, chosen, cache)
        events = reading.events(rows_held, running)
        yield events
        for event in events:
            written[event.row].append(event.id)
        running -= {event.row for event in events if event.id in stop_ids}
        if limits is not None:
            running = {row for row in running if len(written[row]) < limits[row]}
        if not running or last:
            return
        if ahead:
            continue
        if drop_ended and len(running) < len(rows_held):
            places = close_ranks([row in running for row in rows_held])
            cache.keep(places)
            rows_held = [rows_held[place] for place in places]
            kept = torch.tensor(places, device=chosen.device)
            chosen, states = chosen[kept], None if states is None else states[kept]
        logits = cuda_graph.step(model, chosen, cache)


def _write_recorded(
    model: GenerativeModel,
    inputs: Inputs,
    cache: KVCache,
    stop_ids: frozenset[int],
    max_tokens: int,
    rules: RecordedRules,
    limits: Sequence[int] | None,
) -> Generator[list[TokenEvent]]:
    """The loop of `generate` where each step chooses for itself: the device is a step ahead of the host."""
    rows = list(range(len(inputs.tokens)))
    running, written = set(rows), [0] * len(rows)
    logits = cuda_graph.prefill(model, inputs, cache)
    graph = cuda_graph.choosing(model, inputs.tokens[:, -1], cache, rules)
    found: Found | None = rules.choose(logits, graph.states)
    for step in range(max_tokens):
        assert found is not None
        reading = Reading(logits, found.ids, found)
        if step < max_tokens - 1:
            graph(found.ids)
            found = graph.found
        events = reading.events(rows, running)
        yield events
        for event in events:
            written[event.row] += 1
            if event.id in stop_ids or (limits is not None and written[event.row] >= limits[event.row]):
                running.remove(event.row)
        if not running:
            return


def own_copy(logits: Tensor, rules: LogitRules | None) -> Tensor:
    """The prefill's logits as rules may write over them: a model may keep its own in the context, to be read later."""
    return logits if rules is None else logits.clone()


def close_ranks(running: list[bool]) -> list[int]:
    """Places of the rows that go on, with holes filled from the end: most stay where they are."""
    count = sum(running)
    late = [place for place in range(count, len(running)) if running[place]]
    return [place if running[place] else late.pop() for place in range(count)]


class Reading:
    """Ids and log-probabilities of one step on their way to the host, in one transfer."""

    def __init__(self, logits: Tensor, chosen: Tensor, found: Found | None = None, sleeps: bool = False):
        """`found` is what is read, where it was made of the logits already.

        A host that `sleeps` until it is there leaves its core to others, and wakes some 50 µs later.
        """
        if found is None:
            logprobs = _logprobs(logits.float(), chosen)
            found = Found(chosen, torch.stack((chosen.float(), logprobs)))
        self._both, self._arrival = found.both, None
        if not chosen.is_cuda:
            return
        if found.both.is_cuda:
            both = torch.empty_like(found.both, device="cpu", pin_memory=True)
            self._both = both.copy_(found.both, non_blocking=True)
        self._arrival = torch.cuda.Event(blocking=sleeps)
        self._arrival.record(torch.cuda.current_stream(chosen.device))  # which need not be the current device

    def events(self, rows: list[int], running: set[int]) -> list[TokenEvent]:
        """Those of the running rows, in row order."""
        if self._arrival is not None:
            self._arrival.synchronize()
        ids, values = self._both.tolist()
        if any(math.isnan(value) for row, value in zip(rows, values, strict=True) if row in running):
            raise no_numbers()
        events = (TokenEvent(row, int(id), value) for row, id, value in zip(rows, ids, values, strict=True))
        return sorted((event for event in events if event.row in running), key=lambda event: event.row)


def _logprobs(logits: Tensor, chosen: Tensor) -> Tensor:
    """The log-probabilities [B] of chosen ids [B] under float32 logits [B, V]."""
    if logits.device.type == "cpu":  # where logsumexp takes twice as long, and eight times with much of -inf
        return logits.log_softmax(dim=-1).gather(-1, chosen[:, None])[:, 0]
    return logits.gather(-1, chosen[:, None])[:, 0] - logits.logsumexp(dim=-1)


def no_numbers() -> ModelError:
    """The error of logits that are NaN: too large for float16 on their way, or made of weights that are NaN."""
    do = "Run it with --dtype float32 or --dtype bfloat16; if it was, its weights are damaged: download the model again"
    return ModelError("The model's numbers left the range of its data type", do)
