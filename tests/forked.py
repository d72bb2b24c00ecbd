"""Commands in processes that have PyTorch already: forked from a server that has imported it, once for all tests.

A command inherits that import and nothing else: mmcli, which the server does not know, is imported by every command as
`python -m mmcli` does it, with the arguments, streams, folder, variables and signals of a process of its own. What
looks at how a process starts (libraries, threads, limits of memory) must run the real one: `command.running` does.
"""

import atexit
import contextlib
import ctypes
import fcntl
import functools
import gc
import io
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

_libc = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1  # prctl(2), Linux


def as_in_a_shell() -> None:
    """In a new child: signals as for a command in a shell's foreground, and an end when its parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def control_terminal() -> None:
    """In a new session: let stdin be its terminal, so that Ctrl-C is a signal, as in a shell."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Forked:
    """A running `mmcli`, with what tests use of `subprocess.Popen`: streams are PIPE, DEVNULL or files."""

    def __init__(
        self, arguments, variables: Mapping[str, str], *, stdin, stdout, stderr, terminal=False, server: str = ""
    ):
        self.returncode: int | None = None
        ends = [_ends(stdin, "wb"), _ends(stdout, "rb"), _ends(stderr, "rb")]
        self.stdin, self.stdout, self.stderr = (own for own, _ in ends)
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(server or _server())
        socket.send_fds(self._connection, [b"."], [theirs for _, theirs in ends])
        for _, theirs in ends:
            os.close(theirs)
        request = {"arguments": arguments, "variables": dict(variables), "folder": os.getcwd(), "terminal": terminal}
        self._connection.sendall(json.dumps(request).encode() + b"\n")
        self._answers = self._connection.makefile("rb")
        self.pid = int(self._answers.readline())

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, negative for a signal, once it has ended."""
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("mmcli", timeout or 0)
            self.returncode = int(self._answers.readline())
            self._connection.close()
        return self.returncode

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def communicate(self, text: bytes = b"", timeout: float | None = None) -> tuple[bytes, bytes]:
        """Write `text`, and read both streams to their ends."""
        read = {}
        readers = [
            threading.Thread(target=lambda stream=stream: read.update({stream: stream.read()}), daemon=True)
            for stream in (self.stdout, self.stderr)
            if stream
        ]
        for reader in readers:
            reader.start()
        if self.stdin:
            with contextlib.suppress(BrokenPipeError), self.stdin:
                self.stdin.write(text)
        for reader in readers:
            reader.join(timeout)
            if reader.is_alive():
                raise subprocess.TimeoutExpired("mmcli", timeout or 0)
        self.wait(timeout)
        return read.get(self.stdout, b""), read.get(self.stderr, b"")


def _ends(stream: object, mode: str) -> tuple[BinaryIO | None, int]:
    """Our end of a stream, if it is a pipe, to be opened in `mode`; and the command's."""
    if stream == subprocess.DEVNULL:
        return None, os.open(os.devnull, os.O_RDWR)
    if stream != subprocess.PIPE:
        return None, os.dup(stream if isinstance(stream, int) else stream.fileno())
    read, write = os.pipe()
    ours, theirs = (read, write) if mode == "rb" else (write, read)
    return open(ours, mode, buffering=-1 if mode == "rb" else 0), theirs


@functools.cache
def _server() -> str:
    """Start the server → the address on which it takes in commands."""
    folder = tempfile.mkdtemp()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{folder}/server")
        listening.listen()
        number = listening.fileno()
        command = [sys.executable, __file__, str(number)]
        server = subprocess.Popen(
            command, pass_fds=[number], stdin=subprocess.DEVNULL, preexec_fn=as_in_a_shell, start_new_session=True
        )

    def end() -> None:
        server.kill()
        server.wait()
        shutil.rmtree(folder)

    atexit.register(end)
    return f"{folder}/server"


def write_command(path: Path) -> None:
    """Write a program that is mmcli for a shell: it has the server do what it is asked, on its own streams."""
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import forked; forked.pass_on({_server()!r})"
    )
    path.write_text(f"#!{sys.executable} -IS\n{code}\n")
    path.chmod(0o755)


def pass_on(server: str) -> None:
    """Run this process's command line in the server, and end as it ends."""
    code = Forked(sys.argv[1:], os.environ, stdin=0, stdout=1, stderr=2, server=server).wait()
    sys.exit(code if code >= 0 else 128 - code)


# -- in the server -----------------------------------------------------------------------------------------------


def serve(listening: socket.socket) -> dict:
    """Fork for every command, for as long as there are tests; returns in its process, with what is asked."""
    import torch  # noqa: F401 (this is what it is for)

    gc.freeze()  # else every command's collector looks at all that PyTorch has made, and copies it by that
    while True:
        connection, _ = listening.accept()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        with connection:
            if os.fork() == 0:
                listening.close()
                return keep(connection)


def keep(tests: socket.socket) -> dict:
    """Fork the command, which tells its id, and tell how it ended; returns in the command's process."""
    as_in_a_shell()
    _, streams, _, _ = socket.recv_fds(tests, 1, 3)
    request = json.loads(tests.makefile("rb").readline())
    child = os.fork()
    if child:
        for stream in streams:
            os.close(stream)
        _, status = os.waitpid(child, 0)
        with contextlib.suppress(OSError):  # the tests have gone on
            tests.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
        os._exit(0)
    os.setsid()
    as_in_a_shell()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    if request["terminal"]:
        control_terminal()
    tests.sendall(b"%d\n" % os.getpid())
    return request


def become(arguments: list[str], variables: dict[str, str], folder: str, terminal: bool) -> None:
    """Be `python -m mmcli` in that folder, with those variables, and with streams as Python opens them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        like = getattr(sys, name)
        lines = name == "stderr" or os.isatty(number)
        raw = (io.BufferedReader if mode == "r" else io.BufferedWriter)(io.FileIO(number, mode, closefd=False))
        setattr(sys, name, io.TextIOWrapper(raw, like.encoding, like.errors, line_buffering=lines))
    sys.path[0] = folder
    sys.argv = ["mmcli", *arguments]
    runpy.run_module("mmcli", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    become(**serve(socket.socket(fileno=int(sys.argv[1]))))
