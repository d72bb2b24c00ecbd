"""The commands of `mmcli`. Each is imported when it is run, explained or completed; a list of all imports all."""

from importlib import import_module
from typing import Any

from typer.main import get_command

from mmcli.cli.help import Group
from mmcli.startup import starting_up

COMMANDS = {  # name → module in which its Typer app is, in the order of the help page
    "caption": "mmcli.cli.caption",
    "detect": "mmcli.cli.detect",
    "segment": "mmcli.cli.segment",
    "read": "mmcli.cli.read",
    "chat": "mmcli.cli.chat",
    "transcribe": "mmcli.cli.transcribe",
    "crop": "mmcli.cli.crop",
    "report": "mmcli.cli.report",
    "tune": "mmcli.cli.tune",
    "evaluate": "mmcli.cli.evaluate",
    "inspect": "mmcli.cli.inspect",
    "config": "mmcli.cli.config",
    "doctor": "mmcli.cli.doctor",
    "help": "mmcli.cli.explain",
    "models": "mmcli.cli.models",
}


class Commands(Group):
    """The group of all commands, by their names alone until one is wanted."""

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        self.commands: Any = dict.fromkeys(COMMANDS) | self.commands

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in COMMANDS and self.commands[cmd_name] is None:
            with starting_up():
                module = import_module(COMMANDS[cmd_name])
            self.commands[cmd_name] = get_command(module.app)
        return super().get_command(ctx, cmd_name)
