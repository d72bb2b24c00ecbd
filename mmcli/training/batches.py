"""Which examples each update learns from, and their batches, made ahead in threads.

All of it follows from the seed and the number of the update, so that a run that goes on meets what it would have met.
"""

import random
from collections import Counter, deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import torch

from mmcli.errors import InputError
from mmcli.example import Example
from mmcli.models.loaded import Loaded
from mmcli.models.teaching import Batch, Row, Teaching

AHEAD = 3  # updates whose batches are made before they are asked for
TRIES = 20  # examples in a row that may be of no use


@dataclass
class Examples:
    """Examples to learn from, some of them replayed: mixed in at a fixed share, so that what was known stays."""

    own: Sequence[Example]
    replayed: Sequence[Example] = ()
    share: float = 0.0  # of the replayed in each batch
    seed: int = 0
    _orders: dict[tuple[int, int], list[int]] = field(default_factory=dict)

    def at(self, place: int) -> tuple[Example, str]:
        """The example of a place in the whole run, counted from 0, and the seed of what is chosen about it."""
        before = int(place * self.share)  # how many places before this one are of replayed examples
        if int((place + 1) * self.share) > before and self.replayed:
            return self._of(1, self.replayed, before)
        return self._of(0, self.own, place - before if self.replayed else place)

    def _of(self, kind: int, examples: Sequence[Example], place: int) -> tuple[Example, str]:
        epoch, index = divmod(place, len(examples))
        return examples[self._order(kind, epoch, len(examples))[index]], f"{self.seed} {kind} {place}"

    def _order(self, kind: int, epoch: int, count: int) -> list[int]:
        key = (kind, epoch)
        if key not in self._orders:
            for old in [one for one in self._orders if one[0] == kind and one[1] < epoch - 1]:
                del self._orders[old]
            generator = torch.Generator().manual_seed(1_000_003 * self.seed + 2 * epoch + kind)
            self._orders[key] = torch.randperm(count, generator=generator).tolist()
        return self._orders[key]


class Feeder:
    """The batches of each update for one of several processes."""

    def __init__(
        self,
        loaded: Loaded,
        teaching: Teaching,
        examples: Examples,
        batch: int,
        micro: int | None = None,
        rank: int = 0,
        world: int = 1,
        threads: int = 2,
    ):
        """`batch` examples an update in all, of which each process reads its share, `micro` at once."""
        self.loaded, self.teaching, self.examples = loaded, teaching, examples
        self.batch, self.rank, self.world, self.threads = batch, rank, world, threads
        self.micro = min(micro or batch, batch // world)
        self.unusable: Counter[str] = Counter()  # sentences about examples that were passed over

    def updates(self, first: int) -> Generator[list[Batch], None, None]:
        """The batches of every update from `first` on, without end. Raises InputError where hardly any is of use."""
        with ThreadPoolExecutor(self.threads) as pool:
            waiting: deque[list[Future[Row]]] = deque()
            step = first
            try:
                while True:
                    while len(waiting) < AHEAD:
                        places = range(step * self.batch + self.rank, (step + 1) * self.batch, self.world)
                        waiting.append([pool.submit(self.row, place) for place in places])
                        step += 1
                    rows = [future.result() for future in waiting.popleft()]
                    parts = (rows[start : start + self.micro] for start in range(0, len(rows), self.micro))
                    yield [self.teaching.batch(part) for part in parts]
            finally:
                for futures in waiting:
                    for future in futures:
                        future.cancel()

    def row(self, place: int) -> Row:
        """What is learned at a place of the run; of an example that becomes several rows one is chosen.

        In the place of an example that is of no use comes the next one that is.
        """
        for more in range(TRIES):
            example, seed = self.examples.at(place + more * self.batch)
            rng = random.Random(seed)
            try:
                return rng.choice(self.teaching.rows(self.loaded, example, rng, vary=True))
            except InputError as error:
                self.unusable[str(error)] += 1
        raise InputError(f"{TRIES} examples in a row cannot be learned; the last: {next(iter(self.unusable))}")
