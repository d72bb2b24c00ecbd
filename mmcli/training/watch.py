"""What a run reports: the log in its output folder, and calls to watchers."""

import json
from pathlib import Path
from typing import Any, Protocol

LOG = "log.jsonl"


class Watcher(Protocol):
    """Whoever watches a run."""

    def updated(self, line: dict[str, Any]) -> None:
        """An update is done: its step, loss, rate, gradient, examples a second, seconds, and how far the run is."""
        ...

    def evaluated(self, line: dict[str, Any]) -> None:
        """The held-out examples were looked at: step, loss, measures, samples."""
        ...

    def said(self, text: str) -> None:
        """Something that concerns the result."""
        ...


class Watchers:
    """Several watchers as one."""

    def __init__(self, *all: Watcher):
        self.all = all

    def updated(self, line: dict[str, Any]) -> None:
        """As `Watcher.updated`."""
        for one in self.all:
            one.updated(line)

    def evaluated(self, line: dict[str, Any]) -> None:
        """As `Watcher.evaluated`."""
        for one in self.all:
            one.evaluated(line)

    def said(self, text: str) -> None:
        """As `Watcher.said`."""
        for one in self.all:
            one.said(text)


class Log:
    """One JSON object a line: updates (`loss`) and evaluations (`eval_loss`), by their `step`."""

    def __init__(self, output: Path, step: int):
        """Lines behind `step` are of updates that will be made again: they are dropped."""
        self.path = output / LOG
        self.lines = [line for line in read_log(output) if line["step"] <= step] if step else []
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in self.lines)
        self.path.write_text(text, "utf-8")

    def add(self, line: dict[str, Any]) -> None:
        """Write one line, whole."""
        self.lines.append(line)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def read_log(output: Path) -> list[dict[str, Any]]:
    """The lines of a run's log; one that a stop cut off is left out."""
    lines = []
    try:
        text = (output / LOG).read_text("utf-8")
    except (OSError, ValueError):
        return []
    for line in text.splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict) and isinstance(found.get("step"), int):
            lines.append(found)
    return lines
