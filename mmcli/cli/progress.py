"""A progress bar on stderr, only where someone looks at it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Self

from mmcli.cli.environment import Environment
from mmcli.errors import was_interrupted
from mmcli.escape import escape_line
from mmcli.output.writers.text import clock

NAME_WIDTH = 24  # columns for a recording's name, of which the end is shown


@dataclass
class Count:
    """How many inputs, each a `what`, are done, of how many."""

    what: str
    total: int
    done: int = 0
    passed_over: int = 0  # done by an earlier run

    def __str__(self) -> str:
        return f"{self.done + self.passed_over} of {self.total} {self.what}{'s' * (self.total != 1)}"


class Progress:
    """Counts finished inputs: on a terminal with a bar; and when a run is interrupted, it says how far that came.

    `counted` is None where there is nothing to count. Rich is imported only when there is a bar to draw. Where results
    go into a pipe there is none: its reader (head, less) writes on the same terminal, and nobody knows when.
    """

    def __init__(self, environment: Environment, *, wanted: bool = True, counted: Count | None = None, words: str = ""):
        self._bar: Any = None
        self._environment = environment
        self._count = counted
        self._is_aside = False
        self._began = time.monotonic()
        if not wanted or environment.quiet or not environment.stderr_tty or environment.stdout_pipe:
            return
        from rich.console import Console
        from rich.progress import Progress as Bar
        from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

        total = counted.total if counted else None
        columns = [SpinnerColumn(), TextColumn("{task.description}", markup=False), *self._columns(total)]
        console = Console(file=environment.stderr, force_terminal=True, markup=False, highlight=False)
        self._bar = Bar(*columns, TimeElapsedColumn(), console=console, transient=True)
        self._task = self._bar.add_task(words, total=total, spoken="")

    def _columns(self, total: int | None) -> list[Any]:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

        if total is None:
            return []
        return [BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[spoken]}", markup=False)]

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
            self._environment.aside = self.aside
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._bar:
            self._environment.aside = nullcontext
            self._bar.stop()
        if self._count and was_interrupted(error):
            self._environment.note(f"mmcli: interrupted after {self._so_far()}; what was written by then is complete")

    def _so_far(self) -> str:
        return str(self._count)

    def pass_over(self, count: int) -> None:
        """So many inputs in all are done already by an earlier run."""
        if not self._count or count == self._count.passed_over:
            return
        if self._bar:
            self._bar.advance(self._task, count - self._count.passed_over)
        self._count.passed_over = count

    def step(self) -> None:
        """One more input is done."""
        if self._count:
            self._count.done += 1
        if self._bar:
            count = self._count
            seconds = time.monotonic() - self._began
            spoken = pace(count.done, count.total - count.done - count.passed_over, seconds) if count else ""
            self._bar.update(self._task, advance=1, spoken=spoken)

    def aside(self) -> Any:
        """A context in which others may write on the terminal: the bar is gone while it lasts."""
        return self._paused() if self._bar and not self._is_aside else nullcontext()

    @contextmanager
    def _paused(self) -> Iterator[None]:
        self._bar.stop()
        self._is_aside = True
        try:
            yield
        finally:
            self._is_aside = False
            self._bar.start()


def pace(done: int, left: int, seconds: float) -> str:
    """How fast inputs were done since the start, and how long the rest takes at that rate.

    Over the whole run, since answers come in batches: between the last few there is next to no time.
    """
    each = max(seconds, 1e-3) / done
    speed = f"{1 / each:.1f}/s" if each <= 1 else f"{each:.1f} s each"
    return f"{speed}, {clock(left * each)} left"


class AudioProgress(Progress):
    """The same in the time of recordings: how far into the present one, of how much, and how fast."""

    def __init__(self, environment: Environment, counted: Count | None = None):
        super().__init__(environment)
        self._count = counted
        self._reached = ""
        self._done = 0.0  # seconds of audio in the recordings before this one

    def _columns(self, total: int | None) -> list[Any]:
        from rich.progress import BarColumn, TextColumn

        return [BarColumn(), TextColumn("{task.fields[spoken]}", markup=False)]

    def reach(self, name: str, seconds: float, length: float | None) -> None:
        """So many seconds of the recording `name` are done."""
        whole = f" of {clock(length)}" if length is not None else ""
        self._reached = f"{clock(seconds)}{whole} of {name}"
        if not self._bar:
            return
        speed = (self._done + seconds) / max(time.monotonic() - self._began, 1e-3)
        spoken = f"{clock(seconds)}{whole}, {speed:.1f} × real time"
        name = escape_line(name)
        short = name if len(name) <= NAME_WIDTH else f"…{name[1 - NAME_WIDTH :]}"
        self._bar.update(self._task, description=short, completed=seconds, total=length, spoken=spoken)

    def _so_far(self) -> str:
        if self._count and self._count.total == 1:
            return self._reached or "nothing of the recording"
        return f"{self._count}" + (f" and {self._reached}" if self._reached else "")

    def next(self, seconds: float) -> None:
        """The recording is finished; it had so many seconds."""
        self._done += seconds
        self._reached = ""
        if self._count:
            self._count.done += 1
        if self._bar:
            self._bar.update(self._task, description="", completed=0, total=None, spoken="")
