"""Output of libraries, made as safe as mmcli's own: their warnings, logs and progress bars."""

import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from typing import Any, TextIO

from mmcli.cli.environment import Environment
from mmcli.escape import escape
from mmcli.media.addresses import masked

_MOVES = re.compile(r"(?:\n|\x1b\[A)*")  # how tqdm goes from one of its bars to another
_OURS = re.compile("^mmcli:", re.MULTILINE)


class Guarded:
    """A text stream like another, through which no control character passes but those of a tqdm bar.

    tqdm draws a bar anew behind a carriage return, and moves up and down in writes of their own.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        if not _MOVES.fullmatch(text):
            start, body = ("\r", text[1:]) if text.startswith("\r") else ("", text)
            text = start + _OURS.sub(" mmcli:", escape(masked(body)))
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def guarded(environment: Environment) -> Iterator[None]:
    """Send the output of libraries through the environment while this lasts; a warning is a line on stderr."""

    def show_warning(message: Warning | str, category: type[Warning], *place: object, **more: object) -> None:
        environment.note(f"mmcli: {category.__name__}: {message}")

    shown = warnings.showwarning
    warnings.showwarning = show_warning
    try:
        with redirect_stderr(Guarded(sys.stderr)) if sys.stderr else nullcontext():
            yield
    finally:
        warnings.showwarning = shown
