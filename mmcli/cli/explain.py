"""`mmcli help`."""

from typing import Annotated, Any

import typer

from mmcli.cli.help import Command, Group, plain
from mmcli.errors import ExitCode

app = plain()
EPILOG = """\
Examples:

  mmcli help caption
  mmcli help models pull"""


def _commands(ctx: typer.Context, incomplete: str) -> list[str]:
    """The commands that may come next; below `models`, its own."""
    context: Any = ctx.find_root()
    command = context.command
    for word in ctx.params.get("words") or []:
        command = command.get_command(context, word) if isinstance(command, Group) else None
    names = command.list_commands(context) if isinstance(command, Group) else []
    return [name for name in names if name.startswith(incomplete)]


@app.command(cls=Command, epilog=EPILOG)
def command(
    ctx: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="COMMAND", help="The command to explain (default: mmcli itself).", autocompletion=_commands
        ),
    ] = None,
) -> int:
    """Show the help of a command."""
    context: Any = ctx.parent
    for word in words or []:
        command, parent = context.command, context
        if isinstance(command, Group):
            name, below, _ = command.resolve_command(context, [word])
        elif below := command.below(word):
            name, parent = f"{context.info_name} {word}", context.parent
        else:
            raise typer.BadParameter(f"{context.command_path} has no command {word!r}.", ctx)
        context = type(context)(below, info_name=name, parent=parent)
    ctx.obj.write(context.get_help() + "\n")
    return ExitCode.OK
