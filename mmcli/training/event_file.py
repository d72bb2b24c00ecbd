"""A run as TensorBoard shows it: the event file that the package `tensorboard` writes."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmcli.errors import UsageError, WriteError

UPDATES = {"loss": "loss", "rate": "rate", "gradient": "gradient", "samples_per_second": "samples per second"}


class EventFile:
    """A watcher of a run (`training.watch.Watcher`) that writes its numbers as scalars."""

    def __init__(self, folder: Path):
        """`folder` is made when the first number comes. Raises UsageError where the extra is missing."""
        if importlib.util.find_spec("tensorboard") is None:
            raise UsageError(
                "--tensorboard needs the package tensorboard", "Install it: pip install 'mmcli[tensorboard]'"
            )
        self.folder = folder
        self._writer: Any = None

    def updated(self, line: dict[str, Any]) -> None:
        """As `Watcher.updated`."""
        self._write(line["step"], {shown: line[name] for name, shown in UPDATES.items() if name in line})

    def evaluated(self, line: dict[str, Any]) -> None:
        """As `Watcher.evaluated`."""
        measures = {f"held out/{name}": value for name, value in line.get("measures", {}).items()}
        self._write(line["step"], {"held out/loss": line["eval_loss"]} | measures)

    def said(self, text: str) -> None:
        """As `Watcher.said`."""

    def close(self) -> None:
        """Write what is not yet written."""
        if self._writer is not None:
            self._writer.close()

    def _write(self, step: int, numbers: Mapping[str, float]) -> None:
        try:
            if self._writer is None:
                from torch.utils.tensorboard.writer import SummaryWriter

                # What an earlier run that was stopped wrote from here on is made again: it is to be shown once.
                self._writer = SummaryWriter(str(self.folder), purge_step=step)
            for name, value in numbers.items():
                self._writer.add_scalar(name, value, step)
        except OSError as error:
            what = f"{self.folder} cannot be written ({error.strerror or error})"
            raise WriteError(what, "Choose another --tensorboard folder") from error
