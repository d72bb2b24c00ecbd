"""Running mmcli in tests: in process with streams of the test's own, or as the real command."""

import contextlib
import io
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from forked import Forked, as_in_a_shell
from records import read

from mmcli.cli.app import run
from mmcli.cli.environment import Environment

# Nobody's history, configuration or state is read or written.
OF_NOBODY = {"MMCLI_HISTORY": "", "MMCLI_CONFIG": "", "MMCLI_HINTS": "0"}
# The model is so small that more threads would only wait for each other.
ONE_THREAD = {"OMP_NUM_THREADS": "1"} | OF_NOBODY

# Seconds after which something hangs on any machine. No test waits so long for anything that happens.
PATIENCE = 300


def _end(child: subprocess.Popen | Forked) -> None:
    """Kill a child and all in its process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


@contextlib.contextmanager
def _ending(child: subprocess.Popen | Forked) -> Iterator:
    """Nothing of a child is left behind."""
    try:
        yield child
    finally:
        _end(child)
        for pipe in (child.stdin, child.stdout, child.stderr):
            if pipe:
                pipe.close()


def _text(argument: object) -> str:
    """An argument as a command line has it; bytes may be no UTF-8."""
    return os.fsdecode(argument) if isinstance(argument, bytes | os.PathLike) else str(argument)


IN_PIPES = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}


@contextlib.contextmanager
def running(*command: object, variables: dict[str, str] | None = None, **streams) -> Iterator[subprocess.Popen]:
    """A command in a process group of its own, with its output in pipes; nothing of it is left at the end."""
    settings = {"env": os.environ | ONE_THREAD | (variables or {}), "start_new_session": True} | IN_PIPES | streams
    with _ending(subprocess.Popen(list(map(_text, command)), preexec_fn=as_in_a_shell, **settings)) as child:
        yield child


@contextlib.contextmanager
def running_mmcli(*arguments: object, variables: dict[str, str] | None = None, **streams) -> Iterator[Forked]:
    """The same for mmcli in a process that has PyTorch already (see `forked.py`), most of what a command costs."""
    settings = os.environ | ONE_THREAD | (variables or {})
    with _ending(Forked(list(map(_text, arguments)), settings, **IN_PIPES | streams)) as child:
        yield child


def finish(child: subprocess.Popen | Forked) -> tuple[bytes, bytes]:
    """What a running command still writes until its end: stdout and stderr."""
    return child.communicate(timeout=PATIENCE)


@contextlib.contextmanager
def held_back(path: str | os.PathLike) -> Iterator[None]:
    """A FIFO at `path` that is open for writing and given nothing: who reads it waits, on the slowest machine too."""
    os.mkfifo(path)
    writer = os.open(path, os.O_RDWR)  # which waits for no reader
    try:
        yield
    finally:
        os.close(writer)


def until(condition: Callable[[], object], child: subprocess.Popen | Forked) -> None:
    """Wait for something that a running command does, and leave it the processor meanwhile."""
    while not condition():
        assert child.poll() is None or condition(), "it ended before"
        time.sleep(0.01)


@dataclass(frozen=True)
class Done:
    """What came of one command line."""

    code: int
    out: str
    err: str

    @property
    def records(self) -> list[dict]:
        return list(read(self.out))


def environment(stdin: bytes = b"", **settings) -> Environment:
    """Streams in memory, which are terminals only where a test says so, and no variables but those."""
    return Environment(io.BytesIO(stdin), io.StringIO(), io.StringIO(), **{"variables": dict(OF_NOBODY)} | settings)


def mmcli(*arguments: object, stdin: bytes = b"", **settings) -> Done:
    """Run a command line in this process."""
    streams = environment(stdin, **settings)
    code = run([str(argument) for argument in arguments], streams)
    return Done(int(code), streams.stdout.getvalue(), streams.stderr.getvalue())


def process(*arguments: object, stdin: bytes = b"", **options) -> Done:
    """Run a command line as a process of its own."""
    command = [sys.executable, "-m", "mmcli", *arguments]
    options = {"env": os.environ | ONE_THREAD} | options
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=PATIENCE, **options)
    return Done(done.returncode, *(data.decode("utf-8", "surrogateescape") for data in (done.stdout, done.stderr)))


def forked(*arguments: object, variables: dict[str, str]) -> Done:
    """Run a command line in a process that has PyTorch already (see `forked.py`), in an environment of these variables
    alone."""
    with _ending(Forked(list(map(_text, arguments)), variables, **IN_PIPES)) as child:
        written = finish(child)
    return Done(child.returncode, *(data.decode("utf-8", "surrogateescape") for data in written))


def through_head(*arguments: object) -> tuple[bytes, int, bytes]:
    """`mmcli … | head -1` → what head printed, the command's exit code and what it said on stderr."""
    with running("head", "-1", stdin=subprocess.PIPE) as head, running_mmcli(*arguments, stdout=head.stdin) as writer:
        head.stdin.close()
        head.stdin = None
        writer.stdout = None
        _, err = finish(writer)
        line, _ = finish(head)
        return line, writer.returncode, err


_terminals: list["Terminal"] = []


def close_terminals() -> None:
    """End what tests have left on their terminals."""
    for terminal in list(_terminals):
        terminal.close()


class Terminal:
    """mmcli (as `running_mmcli` has it) in a terminal of its own: what it shows, and keys typed into it.

    `stdout` may be sent elsewhere; `variables` are set for it.
    """

    def __init__(self, *arguments: object, stdout: int | None = None, variables: dict[str, str] | None = None):
        ours, theirs = pty.openpty()
        self.screen = b""
        self._open = True
        self._fd = ours
        settings = os.environ | ONE_THREAD | {"TERM": "xterm", "COLUMNS": "80"} | (variables or {})
        streams = {"stdin": theirs, "stdout": theirs if stdout is None else stdout, "stderr": theirs}
        self.process = Forked(list(map(_text, arguments)), settings, terminal=True, **streams)
        _terminals.append(self)
        os.close(theirs)

    def until(self, text: str, times: int = 1) -> str:
        """Wait until `text` has been shown `times`; everything shown so far."""
        deadline = time.monotonic() + PATIENCE
        while self.screen.count(text.encode()) < times:
            assert time.monotonic() < deadline, f"{text!r} did not come: {self.screen!r}"
            if not self._read():
                break
        shown = self.screen.decode("utf-8", "replace")
        assert shown.count(text) >= times, f"{text!r} did not come before the end: {shown!r}"
        return shown

    def type(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def end(self, keys: str = "") -> int:
        """Read until the command ends → its exit code.

        `keys` are typed, and again every second as a person would: Python's input() misses a Ctrl-C that comes
        between its prompt and its waiting, until the next key.
        """
        deadline, typed = time.monotonic() + PATIENCE, 0.0
        while self._read():
            now = time.monotonic()
            assert now < deadline, f"it does not end: {self.screen!r}"
            if keys and now > typed + 1:
                self.type(keys)
                typed = now
        self.close()
        return self.process.returncode

    def close(self) -> None:
        """Wait for what has ended by itself, and kill what has not and all that it started."""
        if self in _terminals:
            _terminals.remove(self)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0 if self._open else PATIENCE)
            _end(self.process)
            os.close(self._fd)

    def _read(self) -> bool:
        if not select.select([self._fd], [], [], 0.2)[0]:
            return True
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # Linux: the other end is closed
            data = b""
        self.screen += data
        self._open = bool(data)
        return self._open
