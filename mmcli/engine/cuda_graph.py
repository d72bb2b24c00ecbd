"""Decode steps on a CUDA device as graphs: recorded once, then started with one call instead of a thousand.

A step of one token runs a thousand small kernels, and launching them from Python takes ten times as long as reading the
weights does. (NVIDIA, CUDA programming guide, "CUDA Graphs"; gpt-fast does the same through the compiler.)
"""

import gc
import os
import threading
import weakref
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mmcli.engine.hand_over import SLOTS, Found, HandOver
from mmcli.engine.inputs import Inputs
from mmcli.engine.kv_cache import KVCache
from mmcli.engine.logits import RecordedRules
from mmcli.engine.model import GenerativeModel

SWITCH = "MMCLI_GRAPHS"  # environment variable: 0 = nothing is recorded, steps = the reading of prompts is not

# Room is rounded up to a multiple of this many tokens, so that batches of about the same length share a graph.
ROOM = 128

# Tokens of prompts that are recorded: up to the first number in any case, up to the second where memory is enough,
# since with so many an idle host keeps the device busy, and a busy one does not.
MOST_TOKENS, MORE_TOKENS = 4096, 1 << 14
MOST_PREFILLS = 4  # shapes of prompts that are recorded for a cache: each holds the memory that reading one takes

MOST_ENCODED = 4  # rows that an encoder is recorded for: of more the device is busier than the host
MOST_ENCODERS = 4  # shapes of them

_recording = threading.RLock()  # one thread records at a time

# What was recorded of each model's encoder, by its kind and the shapes of what it reads.
_encoders: "weakref.WeakKeyDictionary[Any, dict[Any, EncoderGraph | None]]" = weakref.WeakKeyDictionary()

# The last cache of each model, with its graph, kept for the next batch of the same shape.
_spare: "weakref.WeakKeyDictionary[Any, KVCache]" = weakref.WeakKeyDictionary()


def take_cache(model: GenerativeModel, rows: int, length: int, device: torch.device) -> KVCache:
    """An empty cache for that many rows and tokens: on CUDA the one of the last batch, where it fits."""
    if device.type != "cuda":
        return model.new_cache(rows, length)
    spare = _spare.pop(model, None)
    if spare is not None and spare.rows == rows and length <= spare.capacity <= 2 * length + ROOM:
        spare.truncate(0)
        return spare
    del spare  # its memory first
    return model.new_cache(rows, -(-length // ROOM) * ROOM)


def give_back(model: GenerativeModel, cache: KVCache) -> None:
    """Keep a cache for `take_cache`, if it has a graph that the next batch can use, with a `context` of its own."""
    graph: Graph | None = cache.graph
    if graph is not None and (graph.context is None or graph.owns_context):
        cache.context = graph.context
        _spare[model] = cache


def prefill(model: GenerativeModel, inputs: Inputs, cache: KVCache) -> Tensor:
    """`model.prefill(inputs, cache)`, from the third prompt of a shape on played back from a graph on CUDA devices.

    The first is read as it is, since recording takes as long as several, and the second is recorded. The logits hold
    until the next one.
    """
    whole = inputs.context is None and inputs.audio is None and cache.length == 0
    small, device = inputs.tokens.numel() <= MORE_TOKENS, cache.valid.device
    if not records(device, "prompts") or not model.prefill_records or not (whole and small):
        return model.prefill(inputs, cache)
    shapes = inputs.tokens.shape, *(image.shape for image in inputs.images), inputs.image_layouts
    if shapes not in cache.prefills:
        while len(cache.prefills) >= MOST_PREFILLS:
            del cache.prefills[next(iter(cache.prefills))]
        cache.prefills[shapes] = None
        return model.prefill(inputs, cache)
    if cache.prefills[shapes] is None:
        if inputs.tokens.numel() > MOST_TOKENS and not _has_room(device):
            return model.prefill(inputs, cache)
        cache.prefills[shapes] = PrefillGraph(model, inputs, cache)
    logits: Tensor = cache.prefills[shapes](inputs)
    return logits


def _has_room(device: torch.device) -> bool:
    """Whether a device has memory for what the greatest of all work so far took beside what is there, twice over."""
    taken = torch.cuda.max_memory_allocated(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] >= 2 * taken


def step(model: GenerativeModel, tokens: Tensor, cache: KVCache) -> Tensor:
    """`model.step(tokens, cache)`, played back from a graph on CUDA devices. The logits hold until the next step."""
    if not records(cache.valid.device, "steps"):
        return model.step(tokens, cache)
    _share_context(cache)
    if not is_recorded(cache):
        cache.graph = None  # the old one's memory first
        cache.graph = Graph(model, tokens, cache)
    logits: Tensor = cache.graph(tokens)
    return logits


def choosing(model: GenerativeModel, tokens: Tensor, cache: KVCache, rules: RecordedRules) -> "Graph":
    """The recorded step of a prefilled cache on a CUDA device, with the choice by `rules` behind it, which begin here.

    `tokens` [B] are any.
    """
    _share_context(cache)
    graph: Graph | None = cache.graph
    if graph is None or not is_recorded(cache) or graph.rules is None or graph.rules.settings != rules.settings:
        cache.graph = graph = None  # its memory first
        cache.graph = graph = Graph(model, tokens, cache, rules)
    graph.begin(rules)
    return graph


def _share_context(cache: KVCache) -> None:
    """Let a new context of the cache take the place of the one that its step was recorded with, where it can."""
    graph: Graph | None = cache.graph
    if graph is None or cache.context is graph.context or cache.context is None or not graph.owns_context:
        return
    if graph.context is not None and graph.context.take(cache.context):
        cache.context = graph.context


def records(device: torch.device, what: Literal["steps", "prompts"]) -> bool:
    """Whether that is played back from graphs there."""
    switch = os.environ.get(SWITCH, "1")
    return device.type == "cuda" and (switch == "1" or switch == what)


def is_recorded(cache: KVCache) -> bool:
    """Whether the next step of a cache can be played back: recording it takes as long as many steps."""
    return cache.graph is not None and cache.graph.context is cache.context


def likeliest(cache: KVCache, logits: Tensor) -> Found | None:
    """`GenerativeModel.likeliest` of logits, where they are those of a step or a prompt that was played back with it.

    What it gives holds until the next one.
    """
    graphs: list[Graph | PrefillGraph | None] = [cache.graph, *cache.prefills.values()]
    return next((graph.likeliest for graph in graphs if graph is not None and logits is graph.logits), None)


def waits(model: GenerativeModel, tokens: Tensor) -> bool:
    """Whether the model's steps have a part on the host, for which the tokens must be there."""
    return model.before_step(tokens) is not None


def _recorded(work: Callable[[], None], undo: Callable[[], None] | None = None) -> torch.cuda.CUDAGraph:
    """Do some work on the current device aside, `undo` what it did, and record it, whatever other threads do meanwhile.

    Libraries set themselves up at the first call of each thread, which must not be recorded: it may be another thread
    than the one that has done such work before. (PyTorch's own stream to record on is one of the first device that
    recorded.)
    """
    aside, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        work()
    torch.cuda.current_stream().wait_stream(aside)
    if undo is not None:
        undo()
    with _no_garbage_collected(), torch.cuda.graph(graph, stream=aside, capture_error_mode="thread_local"):
        work()
    return graph


@contextmanager
def _no_garbage_collected() -> Iterator[None]:
    """A context in which Python frees nothing by itself: a graph among it, freed by this thread, ends the recording."""
    with _recording:
        collects = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if collects:
                gc.enable()


class Graph:
    """One decode step in the memory of one cache.

    What a model must do on the host for a step (`before_step`: fetching rows of a table that is not on the device)
    stays outside of the graph and comes in through a tensor of its own. The step may end with a choice by `rules`.
    """

    def __init__(self, model: GenerativeModel, tokens: Tensor, cache: KVCache, rules: RecordedRules | None = None):
        copy = None if cache.context is None else cache.context.copied()
        self.owns_context = copy is not None
        cache.context = cache.context if copy is None else copy
        self.context = cache.context  # the graph reads its tensors where they are
        self.rules = rules
        self.states = () if rules is None else tuple(tensor.clone() for tensor in rules.tensors)
        self._cache = weakref.proxy(cache)  # the cache holds the graph
        self._model: Any = weakref.proxy(model)
        self._tokens = tokens.clone()
        self._hand_over = HandOver.to(self._tokens, cache.cursor)
        self._found: Found | None = None
        self._turns = 0
        self._place: int | None = None  # where the next step will write without being told
        self._extra = model.before_step(tokens)
        arguments: list[Any] = [self._tokens, cache] + ([] if self._extra is None else [self._extra])
        state = [tensor.clone() for tensor in (cache.valid, cache.positions)]
        cache.cursor.fill_(cache.length)
        cache.fixed = True
        try:
            with torch.cuda.device(cache.valid.device):  # streams, and kernels of our own, are those of the current one
                self._record(model, arguments, cache, state)
        finally:
            cache.fixed = False

    def _record(self, model: GenerativeModel, arguments: list[Any], cache: KVCache, state: list[Tensor]) -> None:
        """Run a step aside, undo what it did to the `state` of the cache, and record one."""

        def undo() -> None:
            cache.valid.copy_(state[0])
            cache.positions.copy_(state[1])

        self._graph = _recorded(lambda: self._step(model, arguments), undo)
        self._hand_over.turns.zero_()

    def _step(self, model: GenerativeModel, arguments: list[Any]) -> None:
        self.logits = model.step(*arguments)
        after = self._hand_over
        if self.rules is None:
            self._found = model.likeliest(self.logits, after)
        else:
            self._found = self.rules.choose(self.logits, self.states, after)
        if self._found is not None and not after.done:
            after.plain(self._found.ids)

    @property
    def found(self) -> Found | None:
        """What the last step chose by the rules, or else what `GenerativeModel.likeliest` gave."""
        if self._found is None or not self._hand_over.done:
            return self._found
        return Found(self._found.ids, self._hand_over.slots[(self._turns - 1) % SLOTS])

    @property
    def likeliest(self) -> Found | None:
        """The same where there are no rules."""
        return self.found if self.rules is None else None

    def begin(self, rules: RecordedRules) -> None:
        """Forget what was written; `rules` of the same settings know the rows of another batch."""
        for own, given in zip(self.states, rules.tensors, strict=True):
            own.copy_(given)

    def __call__(self, tokens: Tensor) -> Tensor:
        """Read one token a row, tokens [B] → logits [B, V] of the next. ValueError where the cache is full."""
        cache = self._cache
        if cache.length == cache.capacity:
            raise ValueError(f"the cache holds {cache.capacity} tokens, one more was asked for")
        if self._found is None or tokens is not self._found.ids:  # else the step left them there
            self._tokens.copy_(tokens)
        if cache.length != self._place:
            cache.cursor.fill_(cache.length)
        extra: Tensor | None = self._model.before_step(tokens)
        if self._extra is not None and extra is not None:
            self._extra.copy_(extra)
        self._graph.replay()
        cache.length += 1
        self._turns += 1
        self._place = None if self._found is None else cache.length
        return self.logits


def encode(
    model: nn.Module, function: Callable[..., list[Tensor]], *inputs: Tensor, kind: Hashable = None
) -> list[Tensor]:
    """`function(*inputs)`, a part of the model that reads few rows on a CUDA device and asks nothing of it on the way.

    From the second call with these shapes on it is played back from a graph. All tensors that it reads beside weights
    are among the inputs; what else it depends on is its `kind`.
    """
    x = inputs[0]
    if not records(x.device, "prompts") or len(x) > MOST_ENCODED or torch.is_grad_enabled():
        return function(*inputs)
    recorded, shapes = _encoders.setdefault(model, {}), (kind, *(tensor.shape for tensor in inputs))
    if shapes not in recorded:
        while len(recorded) >= MOST_ENCODERS:
            del recorded[next(iter(recorded))]
        recorded[shapes] = None
        return function(*inputs)
    graph = recorded[shapes]
    if graph is None:
        graph = recorded[shapes] = EncoderGraph(function, *inputs)
    return graph(*inputs)


class EncoderGraph:
    """A function of tensors of certain shapes."""

    def __init__(self, function: Callable[..., list[Tensor]], *inputs: Tensor):
        self._inputs = [tensor.clone() for tensor in inputs]

        def work() -> None:
            self._results = function(*self._inputs)

        with torch.cuda.device(inputs[0].device):
            self._graph = _recorded(work)

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """What the function makes of the inputs, in memory of its own."""
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self._graph.replay()
        return [result.clone() for result in self._results]


class PrefillGraph:
    """The reading of prompts of one shape into the memory of one empty cache."""

    def __init__(self, model: GenerativeModel, inputs: Inputs, cache: KVCache):
        images = tuple(image.clone() for image in inputs.images)
        self._inputs = replace(inputs, tokens=inputs.tokens.clone(), valid=inputs.valid.clone(), images=images)
        self._cache = weakref.proxy(cache)  # the cache holds the graph

        def work() -> None:
            self.logits = model.prefill(self._inputs, cache)
            self.likeliest = model.likeliest(self.logits)

        with torch.cuda.device(cache.valid.device):
            self._graph = _recorded(work, lambda: cache.truncate(0))
        cache.length = 0  # what is recorded was not run

    def __call__(self, inputs: Inputs) -> Tensor:
        """Read the rows of a batch into the empty cache → logits [B, V] of the first token to write."""
        for own, given in zip(self._tensors(self._inputs), self._tensors(inputs), strict=True):
            own.copy_(given)
        self._graph.replay()
        self._cache.length = inputs.tokens.shape[1]
        return self.logits

    @staticmethod
    def _tensors(inputs: Inputs) -> tuple[Tensor, ...]:
        return inputs.tokens, inputs.valid, *inputs.images
