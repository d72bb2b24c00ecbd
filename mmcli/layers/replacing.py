"""Layers in the place of others, several made at a time."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias

import torch
from torch import nn

Place: TypeAlias = tuple[nn.Module, str, Any]  # the owner of a layer, the layer's name there, the layer


def replace_each(places: list[Place], form: Callable[[Any], nn.Module], at_once: int) -> None:
    """Put `form` of each layer in its place, the last first; `places` is empty then.

    As many are made side by side as PyTorch has threads, but no more than `at_once`: each is in memory twice meanwhile.
    """
    waiting: SimpleQueue[Place] = SimpleQueue()
    while places:  # nothing but its owner keeps a layer that waits
        waiting.put(places.pop())

    def work() -> None:
        with suppress(Empty):
            while True:
                owner, name, layer = waiting.get_nowait()
                setattr(owner, name, form(layer))
                del layer

    workers = min(at_once, torch.get_num_threads())
    if workers == 1:
        work()
        return
    with ThreadPoolExecutor(workers) as pool:
        for made in [pool.submit(work) for _ in range(workers)]:
            made.result()
