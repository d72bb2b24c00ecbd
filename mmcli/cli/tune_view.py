"""How a training run is shown: as a live table in a terminal, else as lines of a log."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Self

from mmcli.cli.environment import Environment
from mmcli.escape import escape_line
from mmcli.output.tables import bytes_text
from mmcli.output.writers.text import clock

QUIET_LINES = 20  # lines about updates of a whole run, where there is no terminal


class TuneView:
    """A watcher of a run (`training.watch.Watcher`)."""

    def __init__(self, environment: Environment):
        self._environment = environment
        self._live: Any = None
        self._update: dict[str, Any] = {}
        self._evaluation: dict[str, Any] = {}
        self._first: dict[str, Any] = {}
        self._reported = -1.0

    def __enter__(self) -> Self:
        if self._environment.stderr_tty and not self._environment.quiet:
            self._show()
            self._environment.aside = self._aside
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._environment.aside = nullcontext
            self._live.stop()
            self._live = None

    def _show(self) -> None:
        """Draw the table below what stands on the terminal; one that was shown before counts lines above it as its."""
        from rich.console import Console
        from rich.live import Live

        console = Console(file=self._environment.stderr, force_terminal=True, markup=False, highlight=False)
        self._live = Live(self._table(), console=console, refresh_per_second=4, transient=True)
        self._live.start(refresh=True)

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """The table is gone while others write on the terminal: it would take their lines with it."""
        self._live.stop()
        try:
            yield
        finally:
            self._show()

    # -- what a run reports -------------------------------------------------------------------------------------------

    def began(self, own: int, held: int, replayed: int) -> None:
        """How many examples there are: to learn from, held out, and replayed."""
        self._report(f"{own} example{'s' * (own != 1)} to learn from, {held} held out, {replayed} replayed")

    def updated(self, line: dict[str, Any]) -> None:
        """As `Watcher.updated`."""
        self._update = line
        if self._live:
            self._live.update(self._table())
        elif line["progress"] - self._reported >= 1 / QUIET_LINES or line["progress"] >= 1:
            self._reported = line["progress"]
            self._report(
                f"step {line['step']} ({100 * line['progress']:.0f} %): loss {line['loss']:.4f}, "
                f"rate {line['rate']:.2e}, {line['samples_per_second']:.2f} samples/s, {self._left()} left"
            )

    def evaluated(self, line: dict[str, Any]) -> None:
        """As `Watcher.evaluated`."""
        self._first = self._first or line
        self._evaluation = line
        if self._live:
            self._live.update(self._table())
        self._report(self._sentence(line))
        for sample in line.get("samples", ()):
            self._environment.log(escape_line(f"  {sample['where']}: {sample['answer']}  [right: {sample['right']}]"))

    def said(self, text: str) -> None:
        """As `Watcher.said`."""
        self._environment.note(f"mmcli: {text}")

    # ----------------------------------------------------------------------------------------------------------------

    def _report(self, text: str) -> None:
        """Log how far the run is, without a terminal too: long runs are followed in a log file."""
        if self._environment.stderr_tty:
            self._environment.log(text)
        else:
            self._environment.note(f"mmcli: {text}")

    def _sentence(self, line: dict[str, Any]) -> str:
        measures = "".join(f", {name} {value:.3f}" for name, value in line.get("measures", {}).items())
        best = " (the best so far)" if line.get("best_step") == line["step"] and line["step"] else ""
        return f"held out at step {line['step']}: loss {line['eval_loss']:.4f}{measures}{best}"

    def _left(self) -> str:
        progress, spent = self._update["progress"], self._update["spent"]
        return clock(spent / progress * (1 - progress)) if progress else "?"

    def _table(self) -> Any:
        from rich.table import Table

        table = Table(show_header=False, box=None, padding=(0, 2))
        update = self._update
        if not update:
            doing = "the first update" if self._evaluation else "reading the model, then what it says before training"
            table.add_row("step", "0", doing)
        if update:
            table.add_row("step", str(update["step"]), f"{100 * update['progress']:.0f} %, {self._left()} left")
            table.add_row("loss", f"{update['loss']:.4f}", f"gradient {update['gradient']:.2f}")
            table.add_row("rate", f"{update['rate']:.2e}", f"{update['samples_per_second']:.2f} samples/s")
            if "memory" in update:
                table.add_row("memory", bytes_text(update["memory"]), "at most")
        if self._evaluation:
            first, now = self._first["eval_loss"], self._evaluation["eval_loss"]
            step = self._evaluation["step"]
            table.add_row(
                "held out", f"{now:.4f}", f"at step {step}, {first:.4f} before" if step else "before training"
            )
            for name, value in self._evaluation.get("measures", {}).items():
                table.add_row(name, f"{value:.3f}", "")
        return table
