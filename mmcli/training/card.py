"""The model card of what was trained."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmcli.version import __version__

NAME = "README.md"
SETTINGS = {  # as a reader of the card would call them
    "method": "method", "batch": "examples an update", "rate": "highest learning rate", "warm": "share of warm-up",
    "decay": "weight decay", "clip": "gradient clipped to", "average": "weights averaged (EMA)",
    "frozen": "parts left as they are", "trained": "further parts", "seed": "seed", "quantize": "base weights in",
    "measure": "best weights by",
}  # fmt: skip
USUAL = {"average": 0.0, "quantize": "none", "frozen": (), "trained": ()}  # not worth a line


def write_card(output: Path, facts: Mapping[str, Any], data: Sequence[str], licence: str | None) -> None:
    """Write it into the output folder: data, settings, measures. OSError."""
    settings, state = facts["settings"], facts["state"]
    lora = settings["method"] == "lora"
    front = {"base_model": facts["model"], "library_name": "peft" if lora else facts["library"]}
    front |= {"license": licence or "other", "tags": ["mmcli", *(["lora"] if lora else [])]}
    text = "---\n" + "".join(f"{key}: {json.dumps(value)}\n" for key, value in front.items()) + "---\n\n"
    text += f"# {output.resolve().name}\n\n"
    text += f"{'A LoRA adapter for' if lora else 'Trained from'} `{facts['model']}` by mmcli {__version__}"
    text += f", {facts['trained'] / 1e6:.2f} million numbers of it.\n\n"
    how = f"--model {facts['model']} --adapter FOLDER" if lora else "--model FOLDER"
    text += f"Use it with `mmcli … {how}`.\n\n"
    if licence is None:
        text += "**Licence:** not given. The licences of the base model and of the data decide it.\n\n"
    text += "## Data\n\n" + "".join(f"- `{Path(name).name}`\n" for name in data) + "\n"
    text += _table({"learned from": facts["examples"], "held out": facts["held_out"], "replayed": facts["replayed"]})
    if facts["labels"]:
        text += f"\nLabels: {', '.join(facts['labels'])}.\n"
    text += "\n## Measures\n\n" + _measures(facts["rows"], state)
    flat = {told: settings[name] for name, told in SETTINGS.items() if settings[name] != USUAL.get(name)}
    flat |= {f"LoRA {name}": value for name, value in settings["lora"].items()} if lora else {}
    flat |= {"updates": state["step"], "seconds of training": round(state["spent"], 1)}
    text += "\n## Settings\n\n" + _table(flat)
    (output / NAME).write_text(text, "utf-8")


def _table(rows: Mapping[str, Any]) -> str:
    lines = [f"| {name} | {_shown(value)} |\n" for name, value in rows.items()]
    return "| | |\n|---|---|\n" + "".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "–"
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _measures(rows: Sequence[Mapping[str, Any]], state: Mapping[str, Any]) -> str:
    evaluations = [row for row in rows if "eval_loss" in row]
    if not evaluations:
        return "Nothing was held out.\n"
    names = list(dict.fromkeys(name for row in evaluations for name in row.get("measures", {})))
    text = f"| {' | '.join(['step', 'loss', *names])} |\n" + "|---" * (2 + len(names)) + "|\n"
    for row in evaluations:
        own = row.get("measures", {})
        cells = [f"{value:.4f}" for value in (row["eval_loss"], *(own.get(name, float("nan")) for name in names))]
        best = " (kept)" if row["step"] == state["best_step"] else ""
        text += f"| {row['step']}{best} | {' | '.join(cells)} |\n"
    return text
