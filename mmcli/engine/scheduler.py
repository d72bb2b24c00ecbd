"""Continuous batching (Yu et al., "Orca", OSDI 2022): rows begin and end while others are being written.

So no row waits for the longest answer of a batch. A batch has as many places as the first rows that come, or more if
memory has room; a row that ends leaves its place, and another whose prompt was read (`engine/joining.py`) is put there
(`KVCache.insert`). The memory stays the same, and with it a recorded step. It knows no family and no task.
"""

import time
from collections.abc import Generator, Sequence

import torch
from torch import Tensor

from mmcli.engine import cuda_graph
from mmcli.engine.device import free_memory, sent
from mmcli.engine.generate import Reading, close_ranks
from mmcli.engine.inputs import Inputs
from mmcli.engine.joining import Row, Take, Waiting
from mmcli.engine.kv_cache import KVCache
from mmcli.engine.logits import LogitsProcessor
from mmcli.engine.model import GenerativeModel
from mmcli.engine.sampling import Sampler, Sampling, sample
from mmcli.errors import keeping_interrupts
from mmcli.types import Completion

# Tokens that fit behind a batch's longest answer: so many steps at least lie between two moves of the whole cache.
SLACK = 128

# More places than rows that are read together cost memory for keys and values alone. A cache with them is made where it
# takes no more than this part of a GPU's free memory: so memory can run out for their sake only where the rest, above
# all what reading prompts takes and recordings keep, would have left less than a sixteenth of it.
SMALL_PART = 1 / 16


@torch.inference_mode()
def write_continuously(
    model: GenerativeModel,
    take: Take,
    *,
    places: int,
    stop_ids: frozenset[int],
    max_tokens: int,
    sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
    at_once: int | None = None,
) -> Generator[tuple[int, Completion]]:
    """What a model whose `rows_join` writes for every row of `take`, with its number, as soon as it ends.

    Rows are numbered as they are taken, and up to `places` of them are written at the same time. Each is what
    `complete` writes for it alone. No more than `at_once` are read together (None: `places`), and there are no more
    places than that either where memory has no room for them; the caches of such a model get no context. Raises what
    `take` and `generate` do.
    """
    at_once = min(places, at_once or places)
    waiting = Waiting(model, take, places, at_once)
    with keeping_interrupts():
        while first := waiting.first():
            yield from _Batch(model, waiting, places, stop_ids, max_tokens, sampling).write(first)


def has_room(model: GenerativeModel, rows: int, length: int) -> bool:
    """Whether a cache of so many rows and tokens is small beside what is free; elsewhere than on a GPU it is."""
    device = model.like.device
    if device.type != "cuda":
        return True
    return rows * length * model.new_cache(1, 1).store.nbytes <= SMALL_PART * free_memory(device)


class _Batch:
    """A batch whose rows come and go, from its first rows until it is empty."""

    def __init__(
        self,
        model: GenerativeModel,
        waiting: Waiting,
        places: int,
        stop_ids: frozenset[int],
        max_tokens: int,
        sampling: Sampling,
    ):
        self.model, self.waiting, self.places = model, waiting, places
        self.stop_ids, self.max_tokens = stop_ids, max_tokens
        self.device = model.like.device
        self.on_gpu = self.device.type == "cuda"
        self.rows: list[Row | None] = []
        self.choice = _Choice(sampling, max_tokens, self.device)

    def write(self, first: Sequence[Inputs]) -> Generator[tuple[int, Completion]]:
        """Write these rows, and those that wait in the places of ones that ended, until no row is left."""
        cache, logits = self._begin(first)
        ended: list[tuple[int, Completion]] = []  # what is not handed out yet
        try:
            waits = not self.on_gpu or cuda_graph.waits(self.model, first[0].tokens[:, -1])
            changed = False  # whether rows joined since the last step
            while True:
                chosen, reading = self._choose(logits, cache, changed)
                if not waits:  # the device goes on while the host reads, with a step too much at the end
                    logits = self._step(chosen, cache)
                while ended:  # now: what is done with it takes no time from the device
                    yield ended.pop(0)
                ended = self._read(reading, cache)
                free = self._free()
                joins = self._joins()
                if len(free) == len(self.rows):
                    if not joins:
                        break
                    cache.truncate(0)  # nobody needs what it holds, and so it need not grow
                elif waits:
                    if free and self.waiting.ended and not joins and not self.on_gpu:  # where a step costs the same
                        chosen = self._close_ranks(cache, chosen)
                    logits = self._step(chosen, cache)
                changed = joins
                while joins:
                    self._join(cache, logits)
                    joins = self._joins()
            yield from ended
        except Exception:
            yield from ended  # what is done is not lost by what went wrong behind it
            raise
        finally:
            cuda_graph.give_back(self.model, cache)

    def _begin(self, first: Sequence[Inputs]) -> tuple[KVCache, Tensor]:
        """Read the first rows → the batch's cache, and logits [B, V] of what its places write first."""
        length = max(part.tokens.shape[1] for part in first) + self.max_tokens - 1 + SLACK
        if self.waiting.more_follow() and has_room(self.model, self.places, length):
            return self._begin_in_parts(first, length)
        inputs, rows = self.waiting.begin(first)
        self.rows = list(rows)
        self.choice.open(len(rows))
        self.choice.begin(range(len(rows)), first)
        cache = cuda_graph.take_cache(self.model, len(rows), length, self.device)
        return cache, cuda_graph.prefill(self.model, inputs, cache)

    def _begin_in_parts(self, first: Sequence[Inputs], length: int) -> tuple[KVCache, Tensor]:
        """The same with more places than rows are read together: the first rows join an empty batch, as all do later.

        Nothing waits for the others: those that are at hand once a GPU is given the first ones are read behind them.
        """
        logits = self.waiting.read(first).logits
        others = self.waiting.at_hand(self.places - len(first))
        places = len(first) + others if self.waiting.ended else self.places
        self.rows = [None] * places
        self.choice.open(places)
        cache = cuda_graph.take_cache(self.model, places, length, self.device)
        logits = logits.new_zeros(places, logits.shape[1])
        self._join(cache, logits)
        while self.waiting.read_more(len(self._free())):
            self._join(cache, logits)
        return cache, logits

    def _choose(self, logits: Tensor, cache: KVCache, changed: bool) -> tuple[Tensor, Reading]:
        """The next tokens of all rows, and what of them the host reads."""
        found = None
        if self.choice.plain:
            found = cuda_graph.likeliest(cache, logits)
            if found is not None and changed:
                found = self.model.likeliest(logits)
        chosen = self.choice.choose(logits, None if found is None else found.ids)
        return chosen, Reading(logits, chosen, found, sleeps=True)

    def _step(self, chosen: Tensor, cache: KVCache) -> Tensor:
        cache.make_room()
        return cuda_graph.step(self.model, chosen, cache)

    def _free(self) -> list[int]:
        return [place for place, row in enumerate(self.rows) if row is None]

    def _joins(self) -> bool:
        """Whether a row can take a free place now. Prompts may be read ahead here, also where no place is free."""
        free = len(self._free())
        return self.waiting.any(free, len(self.rows)) and free > 0

    def _read(self, reading: Reading, cache: KVCache) -> list[tuple[int, Completion]]:
        """Take what a step wrote → the rows that ended, which leave their places."""
        done = []
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
                done.append((row.number, row.completion(ended)))
        return done

    def _join(self, cache: KVCache, logits: Tensor) -> None:
        """Put rows whose prompts were read into free places, in their `logits` too."""
        group, of = self.waiting.take(len(self._free()))
        places = self._free()[: len(of)]
        index = sent(torch.tensor(places), logits.device)
        cache.insert(places, group.cache, of)
        logits.index_copy_(0, index, group.logits[of.start : of.stop].to(logits.dtype))
        for place, source in zip(places, of, strict=True):
            self.rows[place] = group.rows[source]
        self.choice.begin(places, group.parts[of.start : of.stop])

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

    def open(self, places: int) -> None:
        """There are so many places, all of them free: nobody reads what is chosen there."""
        self.at, self.restrictions = [0] * places, [None] * places
        self.draws = [torch.zeros(self.steps, device=self.device)] * places

    def begin(self, places: Sequence[int], parts: Sequence[Inputs]) -> None:
        """Rows begin in these places, each with `Inputs` of its own."""
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
