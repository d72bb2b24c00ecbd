"""How batches that go through a model at the same time, and the reader beside them, share PyTorch's threads."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mmcli.batch.sizes import LARGE_FOR_AUDIO, is_large
from mmcli.engine.cpu import allowed_cores, cores_for_batches

if TYPE_CHECKING:
    from mmcli.models.loaded import Loaded

# A small model's operations are too short to be worth dividing among threads, but batches can be.
MOST_LANES = 4
# Of a lane of images. With eight oneDNN sums in another order (Xeon), so that answers would have other last digits.
MOST_THREADS = 4


class Lanes:
    """Room for a few batches at the same time, each with its share of the threads. It alone sets their number.

    At most `most` lanes; None: as many as pay on this machine. There are none before `open`. A lane of a small model
    has at most `most_threads`; None: any number.
    """

    def __init__(self, most: int | None = None, most_threads: int | None = None):
        self._most_threads = most_threads
        self.most = most or min(MOST_LANES, allowed_cores())
        self.count = 0  # lanes that are open
        self._free = threading.Semaphore(0)
        self._threads: int | None = None  # that PyTorch would use
        self._share = 1  # of them, that a lane has at most

    def leave_to_batches(self) -> None:
        """Keep the calling thread, which finds speech, to itself: its operations are so small that more only hinder it.

        It must be called before `open`: PyTorch gives a new thread the number that was set last.
        """
        import torch

        if self._threads is None:
            self._threads = torch.get_num_threads()
            torch.set_num_threads(1)

    def open(self, loaded: "Loaded") -> None:
        """Let batches through; one at a time if it occupies the device, or if two would be too much for the memory."""
        import torch

        if self._threads is None:
            self._threads = torch.get_num_threads()
        alone = loaded.device.type != "cpu" or is_large(loaded, LARGE_FOR_AUDIO)
        self.count = 1 if alone else max(1, min(self.most, cores_for_batches(self._threads)))
        self._share = self._threads if alone else min(self._threads, self._most_threads or self._threads)
        self._free.release(self.count)

    def close(self) -> None:
        """Leave PyTorch's threads as they were, to those that come later."""
        if self._threads is not None:
            import torch

            torch.set_num_threads(self._threads)

    @contextmanager
    def one(self, items: int) -> Iterator[None]:
        """A lane for the calling thread, waited for. A single item is all that is left: its lane gets what it may."""
        import torch

        with self._free:
            threads = self._threads or 1
            share = min(self._share, threads if items == 1 else max(1, threads // self.count))
            if torch.get_num_threads() != share:
                torch.set_num_threads(share)  # of this thread
            yield
