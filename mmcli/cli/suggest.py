"""`mmcli models suggest`: which known models fit this machine, and the line to type for each."""

import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmcli.cli.choice import BUILT_IN
from mmcli.cli.config_file import TASKS
from mmcli.cli.options import LogOptions, option, spread
from mmcli.cli.start import begin
from mmcli.errors import ExitCode
from mmcli.output.json_text import to_json_line
from mmcli.output.tables import bytes_text, fit, table
from mmcli.tasks.reading_library import INSTALL, LIBRARY, is_installed

if TYPE_CHECKING:
    from mmcli.engine.machine import Machine
    from mmcli.hub.here import Here
    from mmcli.models.suggest import Suggestion

EXAMPLES = {
    "caption": "mmcli caption photo.jpg",
    "detect": 'mmcli detect "cat" photo.jpg',
    "segment": 'mmcli segment "cat" photo.jpg',
    "read": "mmcli read photo.jpg",
    "chat": "mmcli chat photo.jpg",
    "transcribe": "mmcli transcribe talk.mp3",
}
OBSTACLES = {
    "memory": "too large for the memory",
    "disk": "too large for the disk",
    "network": "not here, and not to be had without the network",
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGT]?)i?B?", re.IGNORECASE)


def _bytes(value: str | None) -> str | None:
    if value is not None and not (_SIZE.fullmatch(value.strip()) and size_of(value)):
        raise typer.BadParameter(f"{value!r} is no size; write 4GB or 800MB.")
    return value


def size_of(text: str) -> int:
    """ "4GB" → 4000000000."""
    match = _SIZE.fullmatch(text.strip())
    assert match is not None, "it was checked"
    return int(float(match[1]) * 1000 ** " kmgt".index(match[2].lower() or " "))


@spread
def command(
    ctx: typer.Context,
    task: Annotated[
        str | None,
        option("Model", "--task", metavar="|".join(TASKS), callback=lambda value: _task(value), help="Only for this."),
    ] = None,
    memory: Annotated[
        str | None,
        option("Model", "--memory", metavar="SIZE", callback=_bytes, help="As if there were so much, such as 4GB."),
    ] = None,
    offline: Annotated[bool, option("Model", "--offline", help="Only what is on this machine.")] = False,
    json_: Annotated[bool, option("Output", "--json", help="Print one JSON object.")] = False,
    *,
    log: LogOptions,
) -> int:
    """Suggest models that fit this machine, the best first, with the line to type for each.

    What fits goes by memory, disk, network and what is here already. What does more of the tasks comes first, then the
    larger, or a smaller one that is near it by published figures; what would be slow comes after.
    """
    environment = begin(ctx, log, offline)
    from mmcli.engine.machine import this_machine
    from mmcli.hub.here import models_here
    from mmcli.models.suggest import suggest

    machine = this_machine(size_of(memory) if memory else None)
    here = models_here(ask=True)
    found = {one: suggest(one, machine, here) for one in ([task] if task else TASKS)}
    if json_:
        environment.write(to_json_line(as_json(machine, here, found)))
        return ExitCode.OK
    environment.write(as_text(machine, here, found, environment.width))
    return ExitCode.OK


def _task(value: str | None) -> str | None:
    if value is not None and value not in TASKS:
        raise typer.BadParameter(f"{value!r} is none of {', '.join(TASKS)}.")
    return value


def line_of(one: "Suggestion") -> str:
    """What to type for a suggestion; the model that is used anyway is not named."""
    example = EXAMPLES[one.task]
    return example if one.model.name == BUILT_IN[one.task] else one.line(example)


def as_json(machine: "Machine", here: "Here", found: "dict[str, list[Suggestion]]") -> dict[str, Any]:
    """Everything as plain data: also what does not fit, and why."""
    library = {"installed": is_installed(), "install": INSTALL, "line": EXAMPLES["read"]}
    return {
        "machine": asdict(machine) | {"disk": here.free, "online": here.online, "cache": here.place},
        **({"reader": {"name": LIBRARY} | library} if "read" in found else {}),
        "suggestions": [
            {
                "task": one.task,
                "name": one.model.name,
                "repository": one.model.repository or None,
                "bytes": one.model.bytes,
                "parameters": one.model.parameters,
                "licence": one.model.licence,
                "gated": one.model.gated,
                "here": one.here,
                "memory": one.needed,
                "slow": one.slow,
                "obstacle": one.obstacle or None,
                "line": line_of(one),
            }
            for suggestions in found.values()
            for one in suggestions
        ],
    }


def as_text(machine: "Machine", here: "Here", found: "dict[str, list[Suggestion]]", columns: int | None) -> str:
    """A table for each task, and what stands in the way of the others."""
    memory = f"{bytes_text(machine.memory)} of memory" if machine.memory else "memory unknown"
    gpu = f"{machine.gpu}, {bytes_text(machine.gpu_memory)}" if machine.gpu and machine.gpu_memory else machine.gpu
    disk = f", {bytes_text(here.free)} free in {here.place}" if here.free is not None else ""
    cores = "1 core" if machine.cores == 1 else f"{machine.cores} cores"
    text = f"{cores}, {memory}, {gpu or 'no GPU'}{disk}{'; ' + here.offline_why if here.offline_why else ''}\n"
    for task, suggestions in found.items():
        rows = [_row(one) for one in suggestions if not one.obstacle]
        if task == "read":
            rows.insert(0, _library_row(here.online))
        text += f"\n{task}\n" + table(rows, columns)
    for obstacle, words in OBSTACLES.items():
        stopped = [one.model.name for some in found.values() for one in some if one.obstacle == obstacle]
        if stopped:
            text += "\n" + fit(f"{words}: {', '.join(dict.fromkeys(stopped))}\n", columns)
    return text


def _row(one: "Suggestion") -> tuple[str, ...]:
    place = "bundled" if one.model.bundled else "here" if one.here else bytes_text(one.model.bytes)
    gate = "gated" if one.model.gated else "open"
    return f"  {one.model.name}", place, one.model.licence, gate, "slow" if one.slow else "", line_of(one)


def _library_row(online: bool) -> tuple[str, ...]:
    line = EXAMPLES["read"] if is_installed() else INSTALL if online else f"{INSTALL} (needs the network)"
    return f"  {LIBRARY}", "here" if is_installed() else "120 MB", "Apache-2.0", "open", "", line
