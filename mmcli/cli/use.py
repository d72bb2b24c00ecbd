"""`mmcli models use`: from now on another model where --model is not given."""

from pathlib import Path
from typing import Annotated

import typer

from mmcli.cli import complete
from mmcli.cli.choice import choose
from mmcli.cli.config_file import TASKS, write_models
from mmcli.cli.environment import Environment
from mmcli.cli.options import LogOptions, ModelOptions, option, spread
from mmcli.cli.start import begin, capabilities_here
from mmcli.errors import ExitCode, UsageError
from mmcli.hub.known import known_as
from mmcli.output.tables import bytes_text, table

Name = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A bundled model, a folder, or a model of the hub by its short name or as owner/name.",
        autocompletion=complete.models,
    ),
]
For = Annotated[
    str | None,
    option(
        "Model",
        "--for",
        metavar="TASK,TASK",
        autocompletion=complete.values("|".join(TASKS)),
        help=f"The commands that use it, among {', '.join(TASKS)} (default: all that it can be used with).",
    ),
]


@spread
def command(ctx: typer.Context, name: Name, for_: For = None, *, log: LogOptions) -> int:
    """Use a model where --model is not given: written into the configuration file.

    It is downloaded when it is first used; mmcli config shows what holds.
    """
    environment = begin(ctx, log)
    able = can_do(name)
    tasks = wanted(for_, name, able)
    lasting = str(Path(name).expanduser().resolve()) if _is_folder(name) else name
    path = write_models(environment.variables, dict.fromkeys(tasks, lasting))
    environment.write(table([(task, lasting, str(path)) for task in tasks], environment.width))
    for task in tasks:
        choice = choose(task, environment.variables)
        if choice.by != str(path):
            environment.note(f"mmcli: {choice.by} is set, so {task} still uses {choice.model}")
    _report_what_is_missing(environment, name)
    return ExitCode.OK


def can_do(name: str) -> tuple[str, ...] | None:
    """The tasks that a model can be used with; None for one that is not here and not known. Raises ModelError."""
    from mmcli.hub.resolve import is_local, is_repository, resolve

    if (here := capabilities_here(ModelOptions(model=name))) is not None:
        return here.tasks
    known = known_as(name)
    if known is not None and not is_local(name):
        return known.tasks
    if is_local(name) or not is_repository(name):
        resolve(name, download=False)  # which says what is wrong
    return None


def wanted(given: str | None, name: str, able: tuple[str, ...] | None) -> list[str]:
    """The tasks that --for names. UsageError for one that there is not, or that the model cannot do."""
    if given is None and able is None:
        what = f"{name} is not here, so that what it can do is not known"
        raise UsageError(what, f"Name its tasks, such as --for caption,chat, or run mmcli models pull {name} first")
    named = [task.strip() for task in given.split(",") if task.strip()] if given is not None else list(able or ())
    if strange := [task for task in named if task not in TASKS]:
        raise UsageError(f"--for names {strange[0]!r}, which is no task", f"There are {', '.join(TASKS)}")
    if not named:
        raise UsageError("--for names no task", f"There are {', '.join(TASKS)}")
    if able is not None and (cannot := [task for task in named if task not in able]):
        raise UsageError(f"{name} cannot {cannot[0]}", f"It can be used with {', '.join(able)}")
    return list(dict.fromkeys(named))


def _is_folder(name: str) -> bool:
    from mmcli.hub.layout import BUNDLED
    from mmcli.hub.resolve import is_local

    return name not in BUNDLED and is_local(name)


def _report_what_is_missing(environment: Environment, name: str) -> None:
    """Say what is still to be done before the model can run."""
    from mmcli.hub.resolve import cached_folder, hub_name, is_local

    if is_local(name) or cached_folder(name):
        return
    known = known_as(name)
    size = f" ({bytes_text(known.bytes)})" if known else ""
    do = f"it is downloaded at first use, or now with mmcli models pull {name}"
    environment.note(f"mmcli: {name} is not here yet{size}: {do}")
    if known is not None and known.gated:
        page = f"https://huggingface.co/{hub_name(name)}"
        environment.note(f"mmcli: accept its licence at {page}, then log in with: hf auth login")
