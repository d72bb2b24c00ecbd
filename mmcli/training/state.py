"""Checkpoints of a run: folders that every command loads, with what the run needs to go on as if it had not stopped."""

import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmcli.errors import ModelError, WriteError
from mmcli.hub.draft import drafted
from mmcli.hub.json_files import read_json
from mmcli.training.settings import TuneSettings
from mmcli.training.shards import put_state

FOLDER = "checkpoints"
OPTIMIZER, STATE = "optimizer.pt", "state.json"
NAME = re.compile(r"step-(\d+)")
KEPT = 2  # checkpoints; the older ones are removed


@dataclass
class State:
    """Where a run stands."""

    step: int = 0  # updates that are done
    spent: float = 0.0  # seconds of training
    best: float | None = None  # the best measure of the held-out examples so far
    best_step: int = 0
    worse: int = 0  # evaluations since then
    lower: bool = True  # whether a smaller measure is better
    first: dict[str, Any] = field(default_factory=dict)  # the evaluation before the first update


def latest(output: Path) -> Path | None:
    """The newest checkpoint below a run's folder; None where there is none."""
    found = [path for path in (output / FOLDER).glob("step-*") if NAME.fullmatch(path.name) and path.is_dir()]
    return max(found, key=lambda path: int(path.name.partition("-")[2]), default=None)


def save(
    output: Path,
    state: State,
    settings: TuneSettings,
    optimizer: dict[str, Any],
    live: Mapping[str, Tensor],
    write: Callable[[Path], None],
) -> None:
    """Write a checkpoint, whole or not at all; `write(folder)` writes the model, `optimizer` is the optimiser's state.

    `live` are weights that the model's files do not hold as they are, since those are averages. WriteError.
    """
    target = output / FOLDER / f"step-{state.step:07}"
    if target.exists():
        return
    try:
        with drafted(target) as draft:
            write(draft)
            tensors = {name: tensor.detach().cpu() for name, tensor in live.items()}
            _save({"optimizer": optimizer, "live": tensors}, draft / OPTIMIZER)
            facts = {"state": asdict(state), "settings": asdict(settings)}
            (draft / STATE).write_text(json.dumps(facts, indent=2) + "\n", "utf-8")
        for old in sorted((output / FOLDER).glob("step-*"))[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)
        for draft in (output / FOLDER).glob(".mmcli-*.part"):  # of a run that was killed
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise WriteError(f"{target} cannot be written ({error.strerror or error})", "Free some space") from error


def _save(values: dict[str, Any], path: Path) -> None:
    """`torch.save`; OSError where the file cannot be written, of which PyTorch says that it is too short."""
    with path.open("wb") as file:
        try:
            torch.save(values, file)
        except RuntimeError as error:
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None


def read_state(folder: Path) -> tuple[State, dict[str, Any]]:
    """Where the run of a checkpoint stood, and its settings. Raises ModelError for a damaged one."""
    try:
        facts = read_json(folder / STATE)
        return State(**facts["state"]), dict(facts["settings"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{folder / STATE} is no state of a run ({error})", "Begin anew, without --resume") from error


def restore(folder: Path, optimizer: torch.optim.Optimizer, device: torch.device) -> dict[str, Tensor]:
    """Put a checkpoint's optimiser state back, and return the weights that its model's files do not hold."""
    try:
        kept = torch.load(folder / OPTIMIZER, map_location=device, weights_only=True)
        put_state(optimizer, kept["optimizer"])
        return kept["live"]
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        what = f"{folder / OPTIMIZER} does not fit the run ({error})"
        raise ModelError(what, "Begin anew, without --resume") from error
