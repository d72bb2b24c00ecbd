"""Running mmcli in tests: in process with streams of the test's own, or as the real command."""

import fcntl
import io
import json
import os
import select
import subprocess
import sys
import termios
import time
from dataclasses import dataclass

from mmcli.cli.app import run
from mmcli.cli.environment import Environment

# The model is so small that more threads would only wait for each other; and nobody's history is written to.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MMCLI_HISTORY": ""}


@dataclass(frozen=True)
class Done:
    """What came of one command line."""

    code: int
    out: str
    err: str

    @property
    def records(self) -> list[dict]:
        return [json.loads(line) for line in self.out.splitlines()]


def environment(stdin: bytes = b"", **settings) -> Environment:
    """Streams in memory, which are terminals only where a test says so, and no variables."""
    return Environment(io.BytesIO(stdin), io.StringIO(), io.StringIO(), variables={}, **settings)


def mmcli(*arguments: object, stdin: bytes = b"", **settings) -> Done:
    """Run a command line in this process."""
    streams = environment(stdin, **settings)
    code = run([str(argument) for argument in arguments], streams)
    return Done(int(code), streams.stdout.getvalue(), streams.stderr.getvalue())


def process(*arguments: object, stdin: bytes = b"", **options) -> Done:
    """Run a command line as a process of its own."""
    command = [sys.executable, "-m", "mmcli", *arguments]
    options = {"env": os.environ | ONE_THREAD} | options
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=120, **options)
    return Done(done.returncode, *(data.decode("utf-8", "surrogateescape") for data in (done.stdout, done.stderr)))


class Terminal:
    """mmcli in a terminal of its own: what it shows, and keys typed into it.

    `stdout` may be sent elsewhere; `variables` are set for it.
    """

    def __init__(self, *arguments: object, stdout: int | None = None, variables: dict[str, str] | None = None):
        import pty

        ours, theirs = pty.openpty()
        self.screen = b""
        self._fd = ours
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mmcli", *map(str, arguments)],
            stdin=theirs,
            stdout=theirs if stdout is None else stdout,
            stderr=theirs,
            start_new_session=True,
            env=os.environ | ONE_THREAD | {"TERM": "xterm", "COLUMNS": "80"} | (variables or {}),
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that Ctrl-C is a signal, as in a shell
        )
        os.close(theirs)

    def until(self, text: str, times: int = 1, seconds: float = 60) -> str:
        """Wait until `text` has been shown `times`; everything shown so far."""
        deadline = time.monotonic() + seconds
        while self.screen.count(text.encode()) < times:
            assert time.monotonic() < deadline, f"{text!r} did not come: {self.screen!r}"
            if not self._read():
                break
        shown = self.screen.decode("utf-8", "replace")
        assert shown.count(text) >= times, f"{text!r} did not come before the end: {shown!r}"
        return shown

    def type(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def end(self, keys: str = "", seconds: float = 30) -> int:
        """Read until the command ends → its exit code.

        `keys` are typed, and again every second as a person would: Python's input() misses a Ctrl-C that comes
        between its prompt and its waiting, until the next key.
        """
        deadline, typed = time.monotonic() + seconds, 0.0
        while self._read():
            now = time.monotonic()
            assert now < deadline, f"it does not end: {self.screen!r}"
            if keys and now > typed + 1:
                self.type(keys)
                typed = now
        os.close(self._fd)
        return self.process.wait(seconds)

    def _read(self) -> bool:
        if not select.select([self._fd], [], [], 0.2)[0]:
            return True
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # Linux: the other end is closed
            return False
        self.screen += data
        return bool(data)
