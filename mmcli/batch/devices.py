"""One machine with several devices: a process for each, with a model of its own. Nothing beside Python is needed.

A process that dies is started again. What it had in hand is then given out piece by piece, so that the input which
ends every process that works on it is found, and is a failed input like any other.
"""

import multiprocessing
import os
import signal
import threading
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING

from mmcli.batch.outcome import Outcome, ending
from mmcli.batch.sizes import ON_GPU
from mmcli.batch.work import Desk, Work, Worker
from mmcli.engine.cpu import allowed_cores
from mmcli.errors import MachineError, UsageError

if TYPE_CHECKING:
    from mmcli.media.sources import Source

_SPAWN = multiprocessing.get_context("spawn")  # CUDA cannot be used after a fork


def chosen_devices(text: str) -> list[str]:
    """ "all" (every GPU) or names with commas between → devices, perhaps one several times. UsageError."""
    import torch

    if text == "all":
        count = torch.cuda.device_count()
        if not count:
            raise UsageError("PyTorch sees no CUDA device here, so there are none for --devices all", "Leave it out")
        return [f"cuda:{number}" for number in range(count)]
    from mmcli.engine.device import choose_device

    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or "auto" in names:
        raise UsageError(f"--devices {text!r} names no devices", "Write all, or names such as cuda:0,cuda:1")
    for name in names:
        choose_device(name)
    return names


def run(
    work: Work, sources: "Iterable[Source]", devices: list[str], *, keep_images: bool = False
) -> Iterator[tuple[int, Outcome]]:
    """Do the work on all devices: each outcome with the number of its source, as they come.

    Raises what `Desk` does; MachineError where no process lives long enough to answer anything.
    """
    pool = _Pool(work, sources, devices, Desk(work, keep_images=keep_images))
    try:
        yield from pool.outcomes()
    finally:
        pool.stop()


@dataclass
class _Process:
    """A worker, and the numbers of what it has in hand."""

    device: str
    process: "multiprocessing.process.BaseProcess"
    connection: Connection
    numbers: list[int] = field(default_factory=list)
    alone: bool = False  # it has one input that may crash it, and gets no other
    closed: bool = (
        False  # it got the message that nothing follows for now, so that it works on batches that are not full
    )

    def send(self, text: str | None) -> None:
        with suppress(OSError):  # it has died, which is found out where its answers are awaited
            self.connection.send(text)


class _Pool:
    def __init__(self, work: Work, sources: "Iterable[Source]", devices: list[str], desk: Desk):
        self._work, self._desk = work, desk
        self._sources = iter(sources)
        self._suspects: deque[int] = deque()  # what a process had in hand when it died
        self._deaths = 0  # one after another, without an answer in between
        most = ON_GPU if set(devices) == {"cpu"} else work.places_on_gpu
        self._window = 2 * max(getattr(work, "batch_size", None) or 0, most)  # a batch in work, and one that is read
        self._threads = max(1, allowed_cores() // len(devices))
        self._processes = [self._start(device) for device in devices]

    def _start(self, device: str) -> _Process:
        threads = self._threads if device == "cpu" else None
        work = replace(self._work, choice=replace(self._work.choice, device=device, threads=threads))
        ours, theirs = _SPAWN.Pipe()
        process = _SPAWN.Process(target=_serve, args=(theirs, work), daemon=True, name=f"mmcli on {device}")
        process.start()
        theirs.close()
        return _Process(device, process, ours)

    def outcomes(self) -> Iterator[tuple[int, Outcome]]:
        while self._fill():
            for ready in wait([one.connection for one in self._processes if one.numbers]):
                one = next(each for each in self._processes if each.connection is ready)
                try:
                    answer = self._desk.take(one.connection.recv())
                except (EOFError, OSError):
                    answer = self._died(one)
                else:
                    self._deaths = 0
                if answer is not None:
                    with suppress(ValueError):
                        one.numbers.remove(answer[0])
                    yield answer

    def _fill(self) -> bool:
        """Give out as much as the processes may have in hand; False where nothing is left to wait for."""
        given = True
        while given:  # one each in turn: of a few inputs every process gets its share
            given = False
            for one in self._processes:
                given |= self._give(one)
        for one in self._processes:
            if one.numbers and not one.closed and len(one.numbers) < self._window:
                one.send(None)
                one.closed = True
        return any(one.numbers for one in self._processes)

    def _give(self, one: _Process) -> bool:
        """Give a process one more input, if it may have one and there is one."""
        if not one.numbers:
            one.alone = False
        if self._suspects:
            if one.numbers:
                return False
            number = self._suspects.popleft()
            one.alone = True
            self._send(one, number, self._desk.again(number))
            return True
        if one.alone or len(one.numbers) >= self._window:
            return False
        source = next(self._sources, None)
        if source is None:
            return False
        self._send(one, *self._desk.give(source))
        return True

    def _send(self, one: _Process, number: int, text: str) -> None:
        one.numbers.append(number)
        one.send(text)
        one.closed = False

    def _died(self, one: _Process) -> tuple[int, Outcome] | None:
        """Put another process in the place of one that died → the outcome of what it was alone with."""
        one.process.join()
        how = ending(one.process.exitcode or 0)
        self._deaths += 1
        if self._deaths > 2 * len(self._processes) + 1:
            what = f"The process for {one.device} ended {how}, whatever it was given"
            raise MachineError(what, "Free some memory, name fewer devices, or choose a smaller model")
        one.connection.close()
        new = self._start(one.device)
        one.process, one.connection = new.process, new.connection
        numbers, one.numbers, one.closed = one.numbers, [], False
        if one.alone:
            return self._desk.fail(numbers[0], f", the last {how}")
        self._suspects.extend(numbers)
        return None

    def stop(self) -> None:
        """End all processes at once."""
        for one in self._processes:
            one.process.kill()
            one.connection.close()


def _serve(connection: Connection, work: Work) -> None:
    """Answer what comes until the connection ends. In the new process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the one who reads answers ends this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.dup2(2, 1)  # standard output is for results
    warnings.simplefilter("ignore")
    worker = Worker(work)
    ended = False

    def inputs() -> Iterator[str]:
        nonlocal ended
        while True:
            try:
                text = connection.recv()
            except (EOFError, OSError):
                ended = True
                return
            if text is None:
                return
            yield text

    with suppress(BrokenPipeError):
        while not ended:
            for text in worker.answers(inputs()):
                connection.send(text)


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, also in the middle of a batch."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "it was started by multiprocessing"
    wait([parent.sentinel])
    os._exit(1)
