"""Items worked on several at a time, with their results in order."""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(work: Callable[[Item], Result], items: Iterable[Item], at_once: Callable[[], int]) -> Iterator[Result]:
    """The results of `work` in the order of the items, up to `at_once()` of which are worked on at the same time.

    The calling thread draws the items; at one at a time it works on them too, else daemon threads do, and one more item
    waits for them. What `work` raises is raised in the place of its result, and what waits is not begun any more.
    """
    jobs: queue.SimpleQueue[tuple[Item, Future[Result]] | None] = queue.SimpleQueue()
    waiting: deque[Future[Result]] = deque()
    threads: list[threading.Thread] = []
    try:
        for item in items:
            count = at_once()
            if count <= 1 and not waiting:
                yield work(item)
                continue
            while len(threads) < count:
                threads.append(threading.Thread(target=_work, args=(work, jobs), daemon=True, name="side-by-side"))
                threads[-1].start()
            waiting.append(Future())
            jobs.put((item, waiting[-1]))
            del item  # it is the thread's to keep alive
            if len(waiting) > count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
        for _ in threads:
            jobs.put(None)
    # A thread that ran PyTorch and is still ending when the interpreter does would abort the process.
    for thread in threads:
        thread.join()


def _work(work: Callable[[Item], Result], jobs: "queue.SimpleQueue[tuple[Item, Future[Result]] | None]") -> None:
    while (job := jobs.get()) is not None:
        item, future = job
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(work(item))
            except BaseException as error:  # raised again where the result is taken
                future.set_exception(error)
        del job, item, future
