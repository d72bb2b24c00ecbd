"""The bytes that decoding takes, shared by all threads that decode."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Budget:
    """A semaphore of bytes: a thread that would exceed the total waits until others have returned theirs."""

    def __init__(self, total: int):
        self.total = total
        self._free = total
        self._changed = threading.Condition()

    @contextmanager
    def spend(self, amount: int) -> Iterator[None]:
        """Hold `amount` bytes, at most the total, for as long as the context lasts."""
        amount = min(amount, self.total)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= amount)
            self._free -= amount
        try:
            yield
        finally:
            with self._changed:
                self._free += amount
                self._changed.notify_all()
