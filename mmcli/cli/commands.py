"""The commands of `mmcli`. Each is imported when it is run, explained or completed."""

from importlib import import_module
from typing import Any

from typer.main import get_command

from mmcli.cli.help import Group
from mmcli.startup import starting_up

# Name → module in which its Typer app is, and the first sentence of its help; in the order of the help page, which is
# written without an import.
COMMANDS = {
    "caption": ("mmcli.cli.caption", "Describe each picture in a sentence or, with some models, in detail"),
    "detect": ("mmcli.cli.detect", "Find objects in pictures and print a box for each"),
    "segment": ("mmcli.cli.segment", "Find objects in pictures and outline each with a mask"),
    "read": ("mmcli.cli.read", "Read the text in pictures"),
    "chat": (
        "mmcli.cli.chat",
        "Answer questions about pictures and recordings, several at once if the model takes them",
    ),
    "transcribe": ("mmcli.cli.transcribe", "Write down what is said in recordings"),
    "crop": (
        "mmcli.cli.crop",
        "Cut the objects that were found out of their pictures and save each as a picture of its own",
    ),
    "report": (
        "mmcli.cli.report",
        "Make an HTML page of results: pictures with objects drawn in, transcripts with players, search and filters",
    ),
    "tune": (
        "mmcli.cli.tune",
        "Train a model on examples of your own: labelled pictures, prompts and answers, recordings and their texts",
    ),
    "evaluate": ("mmcli.cli.evaluate", "Measure a model on data whose right answers are known"),
    "inspect": (
        "mmcli.cli.inspect",
        "Show a model's stages with their shapes and sizes, its vocabulary and its modules",
    ),
    "config": ("mmcli.cli.config", "Show which model each command uses, what chose it, and the configuration file"),
    "doctor": ("mmcli.cli.doctor", "Show versions and devices, and check the bundled models on this machine"),
    "help": ("mmcli.cli.explain", "Show the help of a command"),
    "models": (
        "mmcli.cli.models",
        "Find, choose, list, download, look at, check, convert, merge, quantize and remove models",
    ),
}


class Commands(Group):
    """The group of all commands, by their names alone until one is wanted."""

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        self.commands: Any = dict.fromkeys(COMMANDS) | self.commands

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in COMMANDS and self.commands[cmd_name] is None:
            with starting_up():
                module = import_module(COMMANDS[cmd_name][0])
            self.commands[cmd_name] = get_command(module.app)
        return super().get_command(ctx, cmd_name)

    def summary(self, ctx: Any, name: str) -> str:
        return COMMANDS[name][1] if name in COMMANDS else super().summary(ctx, name)
