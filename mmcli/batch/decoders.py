"""Images decoded in processes of their own, so that the thread which keeps a GPU busy never waits for Python's lock.

Threads that decode hold that lock for a moment hundreds of times an image, and whoever starts the GPU's work has to
wait for it at each of its operations. The processes are plain children that speak over pipes: nothing of the program's
own main module runs in them, whatever the system, and they end with it, however it ends.
"""

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.spawn import get_executable
from pathlib import Path
from typing import IO, Any

from PIL import Image

from mmcli.batch.decoder_process import Answer, read_message, write_message
from mmcli.batch.outcome import ending
from mmcli.errors import InputError
from mmcli.media.image import LoadedImage, load_image
from mmcli.media.naming import printable
from mmcli.media.sources import Source

_MAIN = "import sys; sys.path[:] = {path!r}; from mmcli.batch.decoder_process import main; main({processes})"


class Decoders:
    """So many processes that decode images of files; until the first of them is there, threads decode themselves.

    They do so too where no process can be started, as in a program that has no Python of its own to start.
    """

    def __init__(self, count: int):
        self._count = count
        self._idle: queue.SimpleQueue[_Process | None] = queue.SimpleQueue()  # None: there are no more
        self._all: list[_Process] = []
        self._lock = threading.Lock()
        self._ready = self._closed = False  # whether one was there yet; whether they were ended
        self._starting: threading.Thread | None = None

    def start(self) -> None:
        """Start the processes, without waiting for them; a second call does nothing."""
        with self._lock:
            if self._starting is None:
                self._starting = threading.Thread(target=self._start, daemon=True, name="start-decoders")
                self._starting.start()

    def _start(self) -> None:
        with suppress(OSError):
            for _ in range(self._count):
                self._begin()
        for one in list(self._all):
            if one.is_there():
                self._idle.put(one)
                self._ready = True
            else:
                self._end(one)

    def _begin(self) -> "_Process":
        """Start one. OSError where that cannot be."""
        with self._lock:
            if self._closed:
                raise OSError("the run has ended")
            one = _Process(self._count)
            self._all.append(one)
            return one

    def load(self, source: Source, side: int, square: tuple[int, int] | None = None) -> LoadedImage:
        """As `load_image`; where a `square` is given (a side, and Pillow's filter), the image is resized to it.

        Raises InputError, also where an image ends every process that decodes it.
        """
        if not self._ready or source.problem is not None or source.path is None or not os.path.isfile(source.path):
            return load_image(source, side=side)
        path, relative = os.path.abspath(source.path), source.relative.as_posix()
        request: dict[str, Any] = {"path": path, "name": source.name, "relative": relative}
        request |= {"side": side, "square": square}
        how = ""
        for _ in range(2):  # what ends one process by itself ends another too
            one = self._idle.get()
            if one is None:
                self._idle.put(None)
                break
            try:
                answer, pixels = one.ask(request)
            except (EOFError, OSError):
                how = self._replace(one)
                continue
            self._idle.put(one)
            return load_image(source, side=side) if answer.too_large else _image(answer, pixels)
        if self._closed:
            raise InputError("The run has ended")
        if not how:
            return load_image(source, side=side)
        what = f"{printable(source.name)} cannot be read: every process that decoded it ended, the last {how}"
        raise InputError(what, "Get a fresh copy of the file, or save it again as PNG")

    def _replace(self, dead: "_Process") -> str:
        """Start another process in place of one that ended → how it did."""
        how = dead.how_it_ended()
        self._end(dead)
        try:
            self._idle.put(self._begin())
        except OSError:
            if not self._all:
                self._idle.put(None)
        return how

    def _end(self, one: "_Process") -> None:
        with self._lock:
            if one in self._all:
                self._all.remove(one)
        one.end()

    def close(self) -> None:
        """End all processes at once."""
        with self._lock:
            self._closed = True
        for one in list(self._all):
            self._end(one)
        self._idle.put(None)


def _image(answer: Answer, pixels: bytes) -> LoadedImage:
    if answer.error is not None:
        raise InputError(*answer.error) if answer.foreseen else RuntimeError(": ".join(answer.error))
    image = Image.frombytes("RGB", (answer.size[0], answer.size[1]), pixels)
    return LoadedImage(image, answer.full[0], answer.full[1], tuple(answer.notes))


class _Process:
    """One process, spoken to by one thread at a time."""

    def __init__(self, processes: int):
        python = get_executable()
        if not python or getattr(sys, "frozen", False):
            raise OSError("there is no Python that could be started")
        package = str(Path(__file__).parents[2])
        path = list(dict.fromkeys([*map(str, sys.path), package]))
        code = _MAIN.format(path=path, processes=processes)
        group = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)  # of Windows, where Ctrl-C is for a group
        with _no_ctrl_c():
            self._process = subprocess.Popen(
                [python, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, creationflags=group
            )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._in: IO[bytes] = self._process.stdin
        self._out: IO[bytes] = self._process.stdout
        self._there = False

    def is_there(self) -> bool:
        """Wait until it is ready; False where it ended before."""
        if not self._there:
            with suppress(EOFError, OSError, ValueError):  # ValueError: it was ended by us
                read_message(self._out)
                self._there = True
        return self._there

    def ask(self, request: Any) -> tuple[Answer, bytes]:
        """What it answers, and the pixels. EOFError or OSError where it ended."""
        if not self.is_there():
            raise EOFError
        try:
            write_message(self._in, request)
            answer, pixels = read_message(self._out)
            return Answer(**answer), pixels
        except ValueError as error:
            raise EOFError from error

    def how_it_ended(self) -> str:
        return ending(self._process.wait())

    def end(self) -> None:
        self._process.kill()
        try:
            self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:  # it waits for a disk, and ends when that answers
            return
        for pipe in (self._in, self._out):
            with suppress(OSError, ValueError):
                pipe.close()


@contextmanager
def _no_ctrl_c() -> Iterator[None]:
    """What is started here is not interrupted with us: it ends when we do."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
