"""Where a command reads and writes: the three streams, whether they are terminals, and how to write to them."""

import contextlib
import errno
import io
import os
import stat
import sys
from collections.abc import Callable, MutableMapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import BinaryIO, TextIO, cast

from mmcli.errors import ExitCode, MmcliError
from mmcli.escape import LONGEST, NAME, escape, escape_line, shorten, wrap
from mmcli.media.addresses import masked

TRACED = 100  # lines of a traceback from its beginning, and as many from its end
READER_GONE = 141  # what a shell reports for a program that SIGPIPE ended: 128 + 13


class ReaderGone(Exception):
    """Whoever read our output has closed it (`| head`): stop quietly."""


class OutputError(MmcliError):
    """Standard output cannot take the result (a full disk, a closed stream)."""

    exit_code = ExitCode.MACHINE


class Closed(io.TextIOBase):
    """Standard output that was closed before we began (`>&-`): nothing can be written to it."""

    def write(self, text: str) -> int:
        raise OSError(errno.EBADF, "it is closed")


@dataclass
class Environment:
    """The streams a command may use, injected so that tests never patch globals.

    stdout carries results and nothing else, stderr messages. Nothing here knows markup. This is the one place where
    text is made fit for a terminal (`mmcli.escape`): messages always, results where stdout is one; in a pipe they stay
    as they are.
    """

    stdin: BinaryIO
    stdout: TextIO
    stderr: TextIO
    stdin_tty: bool = False
    stdout_tty: bool = False
    stderr_tty: bool = False
    stdout_pipe: bool = False  # what is written there goes to another program
    variables: MutableMapping[str, str] = field(default_factory=lambda: os.environ)
    quiet: bool = False
    debug: bool = False
    model_from: str = ""  # what chose the model where the command line did not: a variable, the configuration file
    aside: Callable[[], AbstractContextManager] = nullcontext
    """A context in which the terminal is free to be written on; set by what draws on it meanwhile."""

    @classmethod
    def real(cls) -> "Environment":
        """The process's own streams; bytes of file names that are no valid text pass through them unchanged."""
        sys.stdout = sys.stdout or cast(TextIO, Closed())  # None: closed; what it lacks of a TextIO, nobody asks of it
        stderr = sys.stderr or io.StringIO()
        for stream in (sys.stdin, sys.stdout, stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="surrogateescape")
        stdin = sys.stdin.buffer if sys.stdin else io.BytesIO()
        ttys = [bool(s) and s.isatty() for s in (sys.stdin, sys.stdout, sys.stderr)]
        return cls(stdin, sys.stdout, stderr, ttys[0], ttys[1], ttys[2], _is_pipe(sys.stdout))

    def write(self, text: str) -> None:
        """Write a result to stdout and flush it. Raises ReaderGone when its reader has closed it."""
        text = escape(text) if self.stdout_tty else text
        try:
            with self.aside() if self.stdout_tty else nullcontext():
                _put(self.stdout, text)
        except BrokenPipeError as error:
            raise ReaderGone from error
        except OSError as error:
            do = "Check the disk" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "Send it somewhere else"
            raise OutputError(f"Standard output cannot be written: {error.strerror}", do) from error

    def say(self, text: str, indent: str = "  ") -> None:
        """Write a line to stderr, `--quiet` or not; errors of stderr itself are ignored.

        It is one line whatever is in it, not too long, and shows no password of an address. On a terminal it is
        wrapped, `indent` before what follows.
        """
        line = shorten(escape_line(masked(text)))
        columns = self.columns(self.stderr) if self.stderr_tty else None
        lines = wrap(line, columns, indent) if columns else [line]
        with contextlib.suppress(OSError), self.aside():
            _put(self.stderr, "".join(f"{line}\n" for line in lines))

    @property
    def width(self) -> int | None:
        """How many columns a result should fit into; None where it may be of any width, as in a pipe."""
        return self.columns(self.stdout) if self.stdout_tty else None

    def columns(self, stream: TextIO) -> int | None:
        """How many columns the terminal has that a stream leads to; None where that is unknown."""
        with contextlib.suppress(ValueError):
            if (columns := int(self.variables.get("COLUMNS", "0"))) > 0:
                return columns
        with contextlib.suppress(OSError, ValueError):
            return os.get_terminal_size(stream.fileno()).columns or None
        return None

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
        text = escape_line(str(error))
        subject = escape_line(subject)
        message = text if subject in text else f"{subject}: {text}"
        if subject and len(message) > LONGEST:
            message = message.replace(subject, shorten(subject, NAME))
        self.say(f"mmcli: {message}")
        if self.debug:
            import traceback

            # Indented, so that no line of an error's own text can pass for one of ours.
            lines = "".join(traceback.format_exception(cause or error)).rstrip().splitlines()
            if len(lines) > 2 * TRACED:
                lines = [*lines[:TRACED], "…", *lines[-TRACED:]]
            for line in lines:
                self.say(f"  {line}", indent="    ")


def _is_pipe(stream: TextIO) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError):  # it is closed, or no file of the operating system's
        return False


def _put(stream: TextIO, text: str) -> None:
    """Write and flush; what the stream's encoding cannot say is written as a backslash escape."""
    try:
        stream.write(text)
    except UnicodeEncodeError:
        encoding = stream.encoding or "utf-8"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()
