"""Rows that wait for a place in a batch: on a GPU the prompts of the next ones are read ahead, in a cache of their own.

A prompt takes as long as several steps, and a few of them together hardly longer than half as many. So a group of rows
is read before there is room for it: whichever place becomes free is taken at once, and no step has empty places
for the sake of larger groups. On a CPU, where a step costs what its rows do, rows are read when there is room.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mmcli.engine import cuda_graph
from mmcli.engine.inputs import Inputs, joined
from mmcli.engine.kv_cache import KVCache
from mmcli.engine.model import GenerativeModel
from mmcli.types import Completion, Timings

GROUP = 8  # rows that are read ahead at a time: each of more would take as long, each of fewer longer
JOIN_AT = 4  # Fewer rows than that at hand are read where one in so many places is free.
MOST_CACHES = 4  # of groups, kept for others of their shape with what was recorded

# The next rows, each as `Inputs` of its own, at most so many: those that can be had without waiting (maybe none), or as
# many as there are at all where it is told to wait. None where there are no more.
Take = Callable[[int, bool], Sequence[Inputs] | None]


def reads_ahead(device: torch.device) -> bool:
    """Whether prompts are read before there is room for their rows."""
    return device.type == "cuda"


@dataclass
class Row:
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


@dataclass
class Group:
    """Rows whose prompts were read together."""

    parts: Sequence[Inputs]
    rows: list[Row]
    cache: KVCache
    logits: Tensor  # [rows, V] of their first tokens
    joined: int = 0  # so many of them have places


class Waiting:
    """The rows of a `Take` that have no place yet."""

    def __init__(self, model: GenerativeModel, take: Take, places: int, at_once: int):
        """For a batch of up to so many places; no more than `at_once` rows are read together."""
        self._model, self._take = model, take
        self._places, self._at_once = places, at_once
        self._ahead = reads_ahead(model.like.device)
        self._size = min(GROUP, at_once)
        self._parts: list[Inputs] = []  # at hand, not read
        self._group: Group | None = None
        self._caches: dict[torch.Size, KVCache] = {}
        self._begun = 0
        self.ended = False  # whether no more come than were taken

    def first(self) -> Sequence[Inputs]:
        """The rows that are read first of a batch, none where there are no more."""
        return (not self.ended and self._take(self._at_once, True)) or ()

    def more_follow(self) -> bool:
        """Whether there are, or may be, rows for more places than are read first."""
        return self._places > self._at_once and (self.at_hand(1) > 0 or not self.ended)

    def at_hand(self, most: int) -> int:
        """How many rows, of so many at most, can be read without waiting for them."""
        while len(self._parts) < most and not self.ended:
            more = self._take(most - len(self._parts), False)
            self.ended = more is None
            if not more:
                break
            self._parts += more
        return min(most, len(self._parts))

    def _next(self, count: int) -> list[Inputs]:
        parts, self._parts = self._parts[:count], self._parts[count:]
        return parts

    def begin(self, parts: Sequence[Inputs]) -> tuple[Inputs, list[Row]]:
        """Rows that are read now, on the device."""
        started, like = time.perf_counter(), self._model.like
        rows = [Row(self._begun + i, started, together=len(parts)) for i in range(len(parts))]
        self._begun += len(parts)
        return joined(parts).to(like.device, like.dtype), rows

    def any(self, free: int, places: int) -> bool:
        """Whether rows are read that can take one of the `free` places; they are read where that is the time to."""
        if self._group is not None:
            return True
        count = self._size if self._ahead else min(free, self._at_once)
        if not count:
            return False
        taken = self.at_hand(count)
        few = taken < count and not self.ended and free * JOIN_AT < places
        if not taken or (self._ahead and few):
            return False
        if self._ahead and taken < count and not self.ended:
            taken = 1 << (taken.bit_length() - 1)  # so that few shapes are recorded
        self._group = self._read(self._next(taken))
        return True

    def read(self, parts: Sequence[Inputs]) -> Group:
        """Read rows that join at once, in a cache that is not kept: so many are read together at the beginning only."""
        inputs, rows = self.begin(parts)
        cache = self._model.new_cache(*inputs.tokens.shape)
        self._group = Group(parts, rows, cache, cuda_graph.prefill(self._model, inputs, cache))
        return self._group

    def read_more(self, free: int) -> bool:
        """`read` as many rows as are at hand, for so many places; False where there are none."""
        count = min(self._at_once, self.at_hand(free))
        if count:
            self.read(self._next(count))
        return count > 0

    def take(self, most: int) -> tuple[Group, range]:
        """The group of the next rows, and which of it: at most so many."""
        assert self._group is not None
        group = self._group
        of = range(group.joined, min(group.joined + most, len(group.rows)))
        group.joined = of.stop
        if group.joined == len(group.rows):
            self._group = None
        return group, of

    def _read(self, parts: Sequence[Inputs]) -> Group:
        inputs, rows = self.begin(parts)
        shape = inputs.tokens.shape
        cache = self._caches.pop(shape, None) or self._model.new_cache(*shape)
        cache.truncate(0)
        logits = cuda_graph.prefill(self._model, inputs, cache)
        if cache.prefills:
            self._caches[shape] = cache
            while len(self._caches) > MOST_CACHES:
                del self._caches[next(iter(self._caches))]
        return Group(parts, rows, cache, logits)
