"""Sends hostile inputs to worker processes and gathers what became of them."""

import importlib
import multiprocessing
import queue
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench.hostile.worker import Result, work

_OTHERS = {"__init__", "__main__", "runner", "worker", "command", "checkpoint_bases"}
READY = 300.0  # seconds that a worker may take to import what it needs


def kinds() -> list[str]:
    """The names of all kinds of input."""
    return sorted(
        path.stem
        for path in Path(__file__).parent.glob("*.py")
        if not path.stem.endswith("damage") and path.stem not in _OTHERS
    )


@dataclass
class Tally:
    """What became of the inputs so far."""

    seconds: float  # more is a fault
    bytes: float  # more is a fault
    verdicts: Counter = field(default_factory=Counter)
    faults: list[tuple[str, Result]] = field(default_factory=list)
    slowest: Result | None = None
    largest: Result | None = None

    def add(self, result: Result) -> str | None:
        """Count one; what its fault is, if it has one."""
        self.verdicts[result.verdict] += 1
        if self.slowest is None or result.seconds > self.slowest.seconds:
            self.slowest = result
        if self.largest is None or result.peak > self.largest.peak:
            self.largest = result
        fault = None
        if result.broke:
            fault = result.verdict
        elif result.peak > self.bytes:
            fault = "memory"
        elif result.seconds > self.seconds:
            fault = "time"
        if fault:
            self.faults.append((fault, result))
        return fault


def trial(kind: str, *, count: int, seed: int, jobs: int = 1, only: Iterable[int] | None = None) -> Iterator[Result]:
    """The results of `count` inputs (or of `only` those numbers), in whatever order they come."""
    killed = getattr(importlib.import_module(f"bench.hostile.{kind}"), "KILLED", 60.0)
    todo: queue.SimpleQueue = queue.SimpleQueue()
    indices = list(range(count)) if only is None else list(only)
    for index in indices:
        todo.put(index)
    results: queue.SimpleQueue = queue.SimpleQueue()
    drivers = [threading.Thread(target=_drive, args=(kind, seed, todo, results, killed)) for _ in range(jobs)]
    for driver in drivers:
        driver.start()
    try:
        for _ in indices:
            result = results.get()
            if isinstance(result, BaseException):
                raise result
            yield result
    finally:
        _emptied(todo)
        for driver in drivers:
            driver.join()


def bounds(kind: str) -> Tally:
    """A tally with the bounds of the kind."""
    module = importlib.import_module(f"bench.hostile.{kind}")
    return Tally(getattr(module, "SECONDS", 10.0), getattr(module, "BYTES", 2e9))


def _emptied(todo: queue.SimpleQueue) -> None:
    while True:
        try:
            todo.get_nowait()
        except queue.Empty:
            return


def _drive(kind: str, seed: int, todo: queue.SimpleQueue, results: queue.SimpleQueue, killed: float) -> None:
    """Keep one worker busy, a new one after each that died."""
    worker = None
    try:
        while True:
            try:
                index = todo.get_nowait()
            except queue.Empty:
                return
            worker = worker or _Worker(kind, seed)
            result = worker.ask(index, killed)
            if result.verdict in ("crashed", "hung"):
                worker = None
            results.put(result)
    except BaseException as error:  # raised again where results are taken
        results.put(error)
    finally:
        if worker is not None:
            worker.end()


class _Worker:
    def __init__(self, kind: str, seed: int):
        context = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
        context.set_forkserver_preload(["torch"])  # once for all workers
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(kind, seed, theirs), daemon=True)
        self.process.start()
        theirs.close()
        if not self.pipe.poll(READY) or self.pipe.recv() != "ready":
            self.process.kill()
            raise RuntimeError(f"a worker for {kind} did not start")

    def ask(self, index: int, killed: float) -> Result:
        self.pipe.send(index)
        try:
            if self.pipe.poll(killed):
                return self.pipe.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            return Result(index, "crashed", f"the worker ended with {self.process.exitcode}", 0.0, 0)
        self.process.kill()
        self.process.join()
        return Result(index, "hung", f"no answer after {killed:g} s", killed, 0)

    def end(self) -> None:
        self.pipe.send(None)
        self.process.join(30)
        self.process.kill()
