"""Continuous batching (Yu et al., "Orca", OSDI 2022): rows begin and end while others are being written.

So no row waits for the longest answer of a batch. A batch has as many places as the first rows that come; a row that
ends leaves its place, and the next ones are prefilled together and put into the free places of the cache
(`KVCache.insert`). The memory stays the same, and with it a recorded step. It knows no family and no task.
"""

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mmcli.engine import cuda_graph
from mmcli.engine.device import sent
from mmcli.engine.generate import Reading, close_ranks
from mmcli.engine.inputs import Inputs, joined
from mmcli.engine.kv_cache import KVCache
from mmcli.engine.logits import LogitsProcessor
from mmcli.engine.model import GenerativeModel
from mmcli.engine.sampling import Sampler, Sampling, sample
from mmcli.errors import keeping_interrupts
from mmcli.types import Completion, Timings

# Tokens that fit behind a batch's longest answer: so many steps at least lie between two moves of the whole cache.
SLACK = 128
# On a GPU one in so many places must be free before any are filled: it reads few prompts hardly faster than many.
JOIN_AT = 4

# The next rows, each as `Inputs` of its own, at most so many: those that can be had without waiting (maybe none), or as
# many as there are at all where it is told to wait. None where there are no more.
Take = Callable[[int, bool], Sequence[Inputs] | None]


@torch.inference_mode()
def write_continuously(
    model: GenerativeModel,
    take: Take,
    *,
    places: int,
    stop_ids: frozenset[int],
    max_tokens: int,
    sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
) -> Generator[tuple[int, Completion]]:
    """What a model whose `rows_join` writes for every row of `take`, with its number, as soon as it ends.

    Rows are numbered as they are taken, and up to `places` of them are written at the same time. Each is what
    `complete` writes for it alone. Raises what `take` and `generate` do.
    """
    begun = 0
    with keeping_interrupts():
        while first := take(places, True):
            batch = _Batch(model, first, begun, stop_ids, max_tokens, sampling)
            begun = yield from batch.write(take)


@dataclass
class _Row:
    """One row while it is written."""

    number: int
    started: float
    read: float | None = None  # when its first token was there
    together: int = 1  # rows that were read with it
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    def completion(self, ended: bool) -> Completion:
        now = time.perf_counter()
        read = self.read or now
        timings = Timings(read - self.started, now - read, self.together)
        return Completion(tuple(self.ids), tuple(self.logprobs), ended, timings)


class _Batch:
    """A batch whose rows come and go, from its first rows until it is empty."""

    def __init__(
        self,
        model: GenerativeModel,
        first: Sequence[Inputs],
        begun: int,
        stop_ids: frozenset[int],
        max_tokens: int,
        sampling: Sampling,
    ):
        self.model, self.stop_ids, self.max_tokens = model, stop_ids, max_tokens
        self.device, self.begun = model.like.device, begun
        self.rows: list[_Row | None] = []
        self.first = first
        self.choice = _Choice(sampling, max_tokens, self.device)
        self.on_gpu = self.device.type == "cuda"
        self.fresh: dict[torch.Size, KVCache] = {}  # of groups of rows that joined, for the next of their shape

    def write(self, take: Take) -> Generator[tuple[int, Completion], None, int]:
        """Write until no row is left → how many rows have begun in all."""
        inputs, self.rows = self._begin(self.first)
        length = inputs.tokens.shape[1] + self.max_tokens - 1
        cache = cuda_graph.take_cache(self.model, len(self.rows), length + SLACK, self.device)
        try:
            logits = cuda_graph.prefill(self.model, inputs, cache)
            self.choice.begin(range(len(self.rows)), self.first)
            waits = not self.on_gpu or cuda_graph.waits(self.model, inputs.tokens[:, -1])
            while True:
                found = cuda_graph.likeliest(cache, logits) if self.choice.plain else None
                chosen = self.choice.choose(logits, None if found is None else found[0])
                reading = Reading(logits, chosen, None if found is None else found[1])
                if not waits:  # the device goes on while the host reads, with a step too much at the end
                    logits = self._step(chosen, cache)
                yield from self._read(reading, cache)
                running = sum(row is not None for row in self.rows)
                if not running:
                    return self.begun
                free = len(self.rows) - running
                # Groups are of one size, so that reading them is recorded.
                enough = max(1, len(self.rows) // JOIN_AT) if self.on_gpu else free
                new = take(enough, False) if free and free >= enough else ()
                if waits:
                    if free and new is None and not self.on_gpu:  # where a step costs the same
                        chosen = self._close_ranks(cache, chosen)
                    logits = self._step(chosen, cache)
                if new:
                    logits = self._join(new, cache, logits)
        finally:
            cuda_graph.give_back(self.model, cache)

    def _begin(self, parts: Sequence[Inputs]) -> tuple[Inputs, list["_Row | None"]]:
        """Rows that join, on the device."""
        started, like = time.perf_counter(), self.model.like
        rows: list[_Row | None] = [_Row(self.begun + i, started, together=len(parts)) for i in range(len(parts))]
        self.begun += len(parts)
        return joined(parts).to(like.device, like.dtype), rows

    def _step(self, chosen: Tensor, cache: KVCache) -> Tensor:
        cache.make_room()
        return cuda_graph.step(self.model, chosen, cache)

    def _read(self, reading: Reading, cache: KVCache) -> Generator[tuple[int, Completion]]:
        """Take what a step wrote; rows that end leave their places."""
        running = {place for place, row in enumerate(self.rows) if row is not None}
        events = reading.events(list(range(len(self.rows))), running)
        now = time.perf_counter()
        for event in events:
            row = self.rows[event.row]
            assert row is not None
            row.read = row.read or now
            row.logprobs.append(event.logprob)
            ended = event.id in self.stop_ids
            if not ended:
                row.ids.append(event.id)
            if ended or len(row.ids) == self.max_tokens:
                self.rows[event.row] = None
                cache.release(event.row)
                yield row.number, row.completion(ended)

    def _join(self, parts: Sequence[Inputs], cache: KVCache, logits: Tensor) -> Tensor:
        """Put new rows into free places → the logits of all."""
        inputs, rows = self._begin(parts)
        shape = inputs.tokens.shape
        fresh = self.fresh.pop(shape, None) or self.model.new_cache(*shape)
        fresh.truncate(0)
        first = cuda_graph.prefill(self.model, inputs, fresh)
        if fresh.prefills:
            self.fresh[shape] = fresh
        places = [place for place, row in enumerate(self.rows) if row is None][: len(rows)]
        cache.insert(places, fresh)
        for place, row in zip(places, rows, strict=True):
            self.rows[place] = row
        self.choice.begin(places, parts)
        return logits.index_copy(0, sent(torch.tensor(places), logits.device), first.to(logits.dtype))

    def _close_ranks(self, cache: KVCache, chosen: Tensor) -> Tensor:
        """Go on with the rows that are there, where nothing takes the free places."""
        kept = close_ranks([row is not None for row in self.rows])
        cache.keep(kept)
        self.rows = [self.rows[place] for place in kept]
        self.choice.keep(kept)
        return chosen[torch.tensor(kept, device=chosen.device)]


class _Choice:
    """How the next token of every place is chosen: each row by its own step, random numbers and logits processor."""

    def __init__(self, sampling: Sampling, steps: int, device: torch.device):
        self.sampling, self.steps, self.device = sampling, steps, device
        self.draws: list[Tensor] = []  # [steps] for each place
        self.at: list[int] = []  # the step of each place
        self.restrictions: list[tuple[LogitsProcessor, Tensor] | None] = []  # and the states [1, …]

    def begin(self, places: Sequence[int], parts: Sequence[Inputs]) -> None:
        """Rows begin in these places, each with `Inputs` of its own."""
        more = 1 + max(places) - len(self.at)
        self.at += [0] * more
        self.restrictions += [None] * more
        self.draws += [torch.empty(0)] * more
        for place, part in zip(places, parts, strict=True):
            self.at[place] = 0
            processor = part.processor
            self.restrictions[place] = None if processor is None else (processor, processor.begin(self.device))
            draws = Sampler(self.sampling, 1, self.steps, self.device).draws
            self.draws[place] = torch.empty(0) if draws is None else draws[:, 0]

    @property
    def plain(self) -> bool:
        """Whether every place takes the likeliest of all tokens."""
        return self.sampling.greedy and not any(self.restrictions)

    def choose(self, logits: Tensor, likeliest: Tensor | None = None) -> Tensor:
        """Logits [B, V] of all places → chosen ids [B]: the `likeliest`, where those are wanted and known."""
        if likeliest is not None:
            self.at = [at + 1 for at in self.at]
            return likeliest
        allowed = logits
        if any(self.restrictions):
            allowed = logits.clone()
            for place, own in enumerate(self.restrictions):
                if own is not None:
                    allowed[place] = own[0].restrict(logits[place : place + 1], own[1])[0]
        if self.sampling.greedy:
            chosen = allowed.argmax(dim=-1)
        else:
            now = [draws[min(at, self.steps - 1)] for draws, at in zip(self.draws, self.at, strict=True)]
            chosen = sample(allowed, self.sampling, torch.stack(now))
        for place, own in enumerate(self.restrictions):
            if own is not None:
                self.restrictions[place] = own[0], own[0].advance(own[1], chosen[place : place + 1])
        self.at = [at + 1 for at in self.at]
        return chosen

    def keep(self, places: Sequence[int]) -> None:
        """Go on with what stands in these places."""
        self.at = [self.at[place] for place in places]
        self.draws = [self.draws[place] for place in places]
        self.restrictions = [self.restrictions[place] for place in places]
