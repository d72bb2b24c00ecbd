"""The processes of a run: one, or as many as torchrun started."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from mmcli.engine.device import choose_device

LONGEST_WAIT = timedelta(hours=12)  # others wait while the first evaluates


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this is, and the device that is its own."""

    rank: int
    world: int
    device: torch.device
    shared: bool = False  # whether each keeps a share of the weights alone, instead of all of them

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def sum(self, *values: float) -> list[float]:
        """The sums of numbers over all processes."""
        if self.world == 1:
            return list(values)
        together = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(together)
        return together.tolist()

    def agreed(self, value: float) -> float:
        """The first process's number."""
        if self.world == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(shared, 0)
        return shared.item()


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """This process among those that torchrun started, each on a GPU of its own; alone where it started none."""
    world, local = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_RANK", 0))
    chosen = choose_device(device)
    if world == 1:
        yield Ranks(0, 1, chosen)
        return
    if chosen.type == "cuda":
        chosen = torch.device("cuda", local)
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=LONGEST_WAIT)
    try:
        yield Ranks(int(os.environ["RANK"]), world, chosen)
    finally:
        dist.destroy_process_group()
