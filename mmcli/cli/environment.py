"""Where a command reads and writes: the three streams, whether they are terminals, and how to speak on them."""

import contextlib
import io
import os
import sys
from collections.abc import Callable, MutableMapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import BinaryIO, TextIO

from mmcli.errors import MmcliError

READER_GONE = 141  # what a shell reports for a program that SIGPIPE ended: 128 + 13


class ReaderGone(Exception):
    """Whoever read our output has closed it (`| head`): stop quietly."""


class OutputError(MmcliError):
    """Standard output cannot take the result (a full disk)."""


@dataclass
class Environment:
    """The streams a command may use, injected so that tests never patch globals.

    stdout carries results and nothing else, stderr the talk. Nothing here knows markup: text is written as it is.
    """

    stdin: BinaryIO
    stdout: TextIO
    stderr: TextIO
    stdin_tty: bool = False
    stdout_tty: bool = False
    stderr_tty: bool = False
    variables: MutableMapping[str, str] = field(default_factory=lambda: os.environ)
    quiet: bool = False
    debug: bool = False
    aside: Callable[[], AbstractContextManager] = nullcontext
    """A context in which the terminal is free to be written on; set by whoever draws on it meanwhile."""

    @classmethod
    def real(cls) -> "Environment":
        """The process's own streams; bytes of file names that are no valid text pass through them unchanged."""
        streams = [stream or io.StringIO() for stream in (sys.stdout, sys.stderr)]  # None: closed (`>&-`)
        for stream in (sys.stdin, *streams):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="surrogateescape")
        stdin = sys.stdin.buffer if sys.stdin else io.BytesIO()
        ttys = [bool(s) and s.isatty() for s in (sys.stdin, sys.stdout, sys.stderr)]
        return cls(stdin, *streams, *ttys)

    def write(self, text: str) -> None:
        """Write a result to stdout and flush it. Raises ReaderGone when nobody reads any more."""
        try:
            with self.aside() if self.stdout_tty else nullcontext():
                _put(self.stdout, text)
        except BrokenPipeError as error:
            raise ReaderGone from error
        except OSError as error:
            raise OutputError(f"Standard output cannot be written: {error.strerror}", "Check the disk") from error

    def say(self, text: str) -> None:
        """Write a line of talk to stderr, `--quiet` or not; trouble with stderr itself is nobody's concern."""
        with contextlib.suppress(OSError), self.aside():
            _put(self.stderr, text + "\n")

    def note(self, text: str) -> None:
        """Say something about a result (a truncated answer, a skipped frame) unless `--quiet`."""
        if not self.quiet:
            self.say(text)

    def log(self, text: str) -> None:
        """Say what is going on (loading, downloading): on a terminal only, and not with `--quiet`."""
        if self.stderr_tty and not self.quiet:
            self.say(text)

    @property
    def edits_lines(self) -> bool:
        """Whether `ask` reads from a real terminal, where a line can be edited as it is typed."""
        return self.stdin_tty and self.stdout_tty and bool(sys.stdin) and self.stdin is sys.stdin.buffer

    def ask(self, prompt: str) -> str | None:
        """A line from the terminal, perhaps with its line break; None at the end."""
        if self.edits_lines:
            try:
                return input(prompt)
            except EOFError:
                self.say("")
                return None
        _put(self.stderr, prompt)
        line = self.stdin.readline()
        return line.decode("utf-8", "surrogateescape") if line else None

    def fail(self, error: MmcliError, subject: str = "", cause: BaseException | None = None) -> None:
        """Say what went wrong, and with `--debug` where; `subject` names the input if the sentence does not."""
        text = str(error)
        self.say(f"mmcli: {subject}: {text}" if subject and subject not in text else f"mmcli: {text}")
        if self.debug:
            import traceback

            self.say("".join(traceback.format_exception(cause or error)).rstrip())


def _put(stream: TextIO, text: str) -> None:
    """Write and flush; what the stream's encoding cannot say is written as a backslash escape."""
    try:
        stream.write(text)
    except UnicodeEncodeError:
        encoding = stream.encoding or "utf-8"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()
