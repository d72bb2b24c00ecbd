"""Prefetching: work on the next items goes on in background threads, its results are handed out in order."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TypeAlias, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

Job: TypeAlias = tuple[Item, Future[Result]]
Jobs: TypeAlias = queue.SimpleQueue[Job[Item, Result] | None]  # None: there are no more
Order: TypeAlias = queue.SimpleQueue[Job[Item, Result] | BaseException | None]  # the items' own error ends it too


def prefetch(
    function: Callable[[Item], Result], items: Iterable[Item], *, depth: int, threads: int = 2
) -> "Prefetched[Item, Result]":
    """Apply `function` to items in background threads, at most `depth` of them done or under way and not yet taken.

    Yields each item with its finished future, in the order of the items; an error of the items themselves is raised
    in its place. Items are drawn by a thread of their own, so a slow list of names does not hold back what is done.
    All threads are daemons: an interrupted program does not wait for a slow download. Work starts at the call, not at
    the first step.
    """
    jobs: Jobs[Item, Result] = queue.SimpleQueue()
    order: Order[Item, Result] = queue.SimpleQueue()
    room = threading.Semaphore(depth)
    stopped = threading.Event()

    def feed() -> None:
        end: BaseException | None = None
        try:
            for item in items:
                room.acquire()
                if stopped.is_set():
                    break
                job: Job[Item, Result] = (item, Future())
                jobs.put(job)
                order.put(job)
                del item, job
        except BaseException as error:  # raised again where the results are taken
            end = error
        order.put(end)
        for _ in range(threads):
            jobs.put(None)

    def work() -> None:
        while (job := jobs.get()) is not None:
            item, future = job
            try:
                future.set_result(function(item))
            except BaseException as error:  # handed to whoever takes the result
                future.set_exception(error)
            del job, item, future  # keep no image alive while waiting

    for target in (feed, *[work] * threads):
        threading.Thread(target=target, daemon=True, name=f"prefetch-{target.__name__}").start()
    return Prefetched(order, room, stopped)


class Prefetched(Iterator[Job[Item, Result]]):
    """What `prefetch` gives."""

    def __init__(self, order: Order[Item, Result], room: threading.Semaphore, stopped: threading.Event):
        self._order, self._room, self._stopped = order, room, stopped
        self._seen: list[Job[Item, Result] | BaseException | None] = []  # the next one, where it was looked at

    @property
    def ready(self) -> bool:
        """Whether the next item, or the end, is there without waiting."""
        if not self._seen:
            try:
                self._seen.append(self._order.get_nowait())
            except queue.Empty:
                return False
        [following] = self._seen
        return not isinstance(following, tuple) or following[1].done()

    def __next__(self) -> Job[Item, Result]:
        following = self._seen.pop() if self._seen else self._order.get()
        if isinstance(following, tuple):
            following[1].exception()  # waits
            self._room.release()
            return following
        self._order.put(None)  # whoever asks again
        self.close()
        if following is not None:
            raise following
        raise StopIteration

    def widen(self, more: int) -> None:
        """Let so many items more be done and wait."""
        for _ in range(more):
            self._room.release()

    def close(self) -> None:
        """Begin nothing more."""
        self._stopped.set()
        self._room.release()

    def __del__(self) -> None:
        self.close()
