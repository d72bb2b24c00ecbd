"""A progress bar on stderr, only where someone looks at it."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from mmcli.cli.environment import Environment


class Progress:
    """Counts finished inputs on a terminal; everywhere else every method does nothing.

    Rich is imported only when there is a bar to draw.
    """

    def __init__(self, environment: Environment, *, wanted: bool = True, total: int | None = None, words: str = ""):
        self._bar: Any = None
        self._environment = environment
        self._is_aside = False
        if not wanted or environment.quiet or not environment.stderr_tty:
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        columns = [SpinnerColumn(), TextColumn("{task.description}", markup=False)]
        if total is not None:
            columns += [BarColumn(), MofNCompleteColumn()]
        console = Console(file=environment.stderr, force_terminal=True, markup=False, highlight=False)
        self._bar = Bar(*columns, TimeElapsedColumn(), console=console, transient=True)
        self._task = self._bar.add_task(words, total=total)

    def __enter__(self) -> "Progress":
        if self._bar:
            self._bar.start()
            self._environment.aside = self.aside
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar:
            self._environment.aside = nullcontext
            self._bar.stop()

    def step(self) -> None:
        """One more input is done."""
        if self._bar:
            self._bar.advance(self._task)

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
