"""The decode loop: prefill once, then one token a row and step. It knows no family and no task."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mmcli.engine.inputs import Inputs
from mmcli.engine.kv_cache import KVCache
from mmcli.engine.sampling import Sampler, Sampling
from mmcli.errors import ModelError


class GenerativeModel(Protocol):
    """What the engine asks of a model; every family's model is an `nn.Module` with these three."""

    def new_cache(self, batch: int, length: int) -> KVCache: ...

    def prefill(self, inputs: Inputs, cache: KVCache) -> Tensor: ...

    def step(self, tokens: Tensor, cache: KVCache) -> Tensor: ...


@dataclass(frozen=True)
class TokenEvent:
    """One token written for one row of the batch."""

    row: int
    id: int
    logprob: float  # under the model's own distribution: temperature 1, nothing cut off


@torch.inference_mode()
def generate(
    model: GenerativeModel,
    inputs: Inputs,
    *,
    stop_ids: frozenset[int],
    max_tokens: int,
    sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
) -> Iterator[list[TokenEvent]]:
    """Write up to `max_tokens` tokens for every row; yields the events of one step as a list, in row order.

    A row's stop token is its last event; after it the row is absent. A row without one was cut off by `max_tokens`.
    Raises ModelError where the logits are not numbers (float16 overflows).
    """
    if max_tokens < 1:
        return
    weight = next(model.parameters())
    inputs = inputs.to(weight.device, weight.dtype)
    rows, prefix = inputs.tokens.shape
    # The last token written is never read again, so it needs no room.
    cache = model.new_cache(rows, prefix + max_tokens - 1)
    sampler = Sampler(sampling, rows, max_tokens, weight.device)
    running = list(range(rows))
    logits = model.prefill(inputs, cache)
    for step in range(max_tokens):
        chosen = sampler.choose(logits, step)
        events = _events(logits, chosen, running)
        yield events
        running = [event.row for event in events if event.id not in stop_ids]
        if not running or step == max_tokens - 1:
            return
        logits = model.step(chosen, cache)


def _events(logits: Tensor, chosen: Tensor, running: list[int]) -> list[TokenEvent]:
    """Bring ids and log-probabilities of the running rows to the host, in one transfer."""
    logprobs = logits.float().log_softmax(dim=-1).gather(-1, chosen[:, None])[:, 0]
    ids, values = torch.stack((chosen.float(), logprobs)).tolist()  # float32 holds ids up to 2^24 exactly
    if any(math.isnan(values[row]) for row in running):
        raise ModelError(
            "The model's numbers left the range of its data type", "Run it with --dtype float32 or --dtype bfloat16"
        )
    return [TokenEvent(row, int(ids[row]), values[row]) for row in running]
