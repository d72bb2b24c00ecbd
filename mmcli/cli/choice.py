"""Which model does a task: --model, else a variable, else the configuration file, else the bundled one."""

from collections.abc import Mapping
from dataclasses import dataclass

import typer

from mmcli.cli.config_file import TASKS, read_config
from mmcli.hub.known import AUDIO_MODEL, IMAGE_MODEL

# The variable of all tasks that are about images or words; recordings have their own.
VARIABLE = "MMCLI_MODEL"
GENERAL = tuple(task for task in TASKS if task != "transcribe")

BUILT_IN = dict.fromkeys(TASKS, IMAGE_MODEL) | {"transcribe": AUDIO_MODEL, "read": ""}  # "": the library of an extra


@dataclass(frozen=True)
class Choice:
    """A model, and what chose it: a variable's name, a file's path, or "" for the one that is built in."""

    model: str
    by: str = ""


def variable_of(task: str) -> str:
    """The variable that names the model of one task."""
    return f"MMCLI_{task.upper()}_MODEL"


def choose(task: str, variables: Mapping[str, str]) -> Choice:
    """The model of a task for which the command line names none. UsageError for a broken configuration file."""
    for name in (variable_of(task), *([VARIABLE] if task in GENERAL else [])):
        if value := variables.get(name, "").strip():
            return Choice(value, name)
    config = read_config(variables)
    if task in config.models:
        return Choice(config.models[task], str(config.path))
    return Choice(BUILT_IN[task])


def model_or_default(ctx: typer.Context, value: str) -> str:
    """The value of --model as it is used: where none is given, what the user has chosen for the command.

    Who chose it is kept for messages. Called by Typer.
    """
    source = ctx.get_parameter_source("model")
    if ctx.resilient_parsing or ctx.obj is None or (source is not None and source.name == "COMMANDLINE"):
        return value
    choice = choose(str(ctx.info_name), ctx.obj.variables)
    ctx.obj.model_from = choice.by
    return choice.model
