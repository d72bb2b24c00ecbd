"""`mmcli config`: which model does what, and where that is settled."""

from typing import Annotated

import typer

from mmcli.cli.choice import VARIABLE, choose
from mmcli.cli.config_file import TASKS, read_config
from mmcli.cli.help import Command, plain
from mmcli.cli.options import LogOptions, option, spread
from mmcli.cli.start import begin
from mmcli.errors import ExitCode
from mmcli.hub.known import IMAGE_MODEL, known_as
from mmcli.models.offered import such_as
from mmcli.output.json_text import to_json_line
from mmcli.output.tables import table
from mmcli.tasks.reading_library import LIBRARY

app = plain()
EPILOG = f"""\
Examples:

  mmcli config
  mmcli config --json | jq -r .models.caption.model
  mmcli models use {such_as("images", bundled=False)} --for caption
  MMCLI_CAPTION_MODEL={IMAGE_MODEL} mmcli caption photo.jpg

--model goes before the variable of a task (MMCLI_CAPTION_MODEL, MMCLI_TRANSCRIBE_MODEL, …), that before
{VARIABLE}, which holds for all tasks but transcribe, and that before the file. MMCLI_CONFIG names another
file, or none if empty; MMCLI_HINTS=0, or hints = false in the file, keeps hints from being shown."""


@app.command(cls=Command, epilog=EPILOG)
@spread
def command(
    ctx: typer.Context,
    json_: Annotated[bool, option("Output", "--json", help="Print one JSON object.")] = False,
    *,
    log: LogOptions,
) -> int:
    """Show which model each command uses, what chose it, and the configuration file."""
    from mmcli.cli.hint import hints_wanted

    environment = begin(ctx, log)
    config, variables = read_config(environment.variables), environment.variables
    choices = {task: choose(task, variables) for task in TASKS}
    hints = hints_wanted(variables, config)
    if json_:
        models = {task: {"model": one.model or LIBRARY, "chosen_by": one.by or None} for task, one in choices.items()}
        file = str(config.path) if config.path else None
        environment.write(to_json_line({"models": models, "hints": hints, "file": file, "there": config.there}))
        return ExitCode.OK
    rows = [(task, one.model or LIBRARY, one.by or _built_in(one.model)) for task, one in choices.items()]
    rows.append(("hints", "on" if hints else "off", ""))
    place = str(config.path) if config.path else "none (MMCLI_CONFIG is empty)"
    rows.append(("file", place if config.there or not config.path else f"{place} (not there)", ""))
    width = max(len(task) for task in TASKS)
    lines = [tuple(cell for cell in row if cell) for row in rows]
    head = table([row for row in lines if len(row) == 3], environment.width)
    environment.write(head + "".join(f"{row[0].ljust(width)}  {row[1]}\n" for row in lines if len(row) == 2))
    return ExitCode.OK


def _built_in(model: str) -> str:
    """Where the model in use comes from if the user chose none."""
    known = known_as(model)
    return "bundled" if known and known.bundled else "with mmcli[read]"
