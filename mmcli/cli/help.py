"""Help pages: options in groups, examples as they are typed, no markup, the same text for every Typer version."""

import shutil
from typing import Any

from typer import Typer
from typer.core import TyperCommand, TyperGroup

from mmcli.cli.values import leave_alone

MAX_WIDTH = 100
ORDER = (
    *("Arguments", "Data", "Pictures", "Videos", "Recordings"),
    *("Answer", "Transcript", "Objects", "Training", "Output", "Model", "Workers", "Other"),
)


def plain(**settings: Any) -> Typer:
    """A Typer app for the command, or the group of commands, of a module; what is set for all, the whole app has."""
    return Typer(rich_markup_mode=None, add_completion=False, **settings)


def _paragraphs(formatter: Any, text: str) -> None:
    """Wrapped paragraphs; one that is indented in the source is kept line by line."""
    for block in text.strip("\n").split("\n\n"):
        formatter.write("\n")
        if block.startswith("  "):
            formatter.write("".join(f"{line}\n" for line in block.splitlines()))
        else:
            formatter.write_text(" ".join(block.split()))


def _begin(command: Any, ctx: Any, formatter: Any) -> None:
    """Usage line and description."""
    formatter.width = min(MAX_WIDTH, shutil.get_terminal_size().columns) - 2
    formatter.write_usage(ctx.command_path, " ".join(command.collect_usage_pieces(ctx)))
    _paragraphs(formatter, command.help or "")


def _column(formatter: Any) -> int:
    """How wide the column of names may be; what is longer has its explanation below it."""
    return max(10, min(28, formatter.width // 3))


def _places(command: Any, ctx: Any) -> list[str]:
    """What may stand after the options, optional things in brackets."""
    arguments = [param for param in command.get_params(ctx) if param.param_type_name == "argument"]
    return [
        (param.metavar if param.required else f"[{param.metavar}]") + ("..." if param.nargs == -1 else "")
        for param in arguments
    ]


def _row(param: Any) -> tuple[str, str]:
    """One option's line: its names with the word for its value, and its help."""
    names = ", ".join(sorted([*param.opts, *param.secondary_opts], key=len))
    return f"{names} {param.metavar}" if param.metavar else names, param.help or ""


class _Helpful:
    """What --help writes goes where results go, so that trouble with stdout is said here too."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        leave_alone(self.get_params(ctx), self.callback)  # type: ignore[attr-defined]
        return super().parse_args(ctx, args)  # type: ignore[misc]  # of the Typer class that it is mixed into

    def get_help_option(self, ctx: Any) -> Any:
        option = super().get_help_option(ctx)  # type: ignore[misc]  # of the Typer class that it is mixed into
        if option is not None:
            option.callback = _help
        return option


def _help(ctx: Any, param: Any, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        ctx.obj.write(ctx.get_help() + "\n")
        ctx.exit()


class Command(_Helpful, TyperCommand):
    """A command whose help groups its options by their panel and ends in its epilog."""

    def below(self, word: str) -> Any:
        """The command that `word` behind this one's name means; None where it is an argument like any other."""
        return None

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return ["[OPTIONS]", *_places(self, ctx)]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        _begin(self, ctx, formatter)
        groups: dict[str, list[tuple[str, str]]] = {name: [] for name in ORDER}
        params: list[Any] = self.get_params(ctx)
        for param in params:
            if param.param_type_name == "argument":
                groups["Arguments"].append((param.metavar, param.help or ""))
            elif not param.hidden:
                groups[getattr(param, "rich_help_panel", None) or "Other"].append(_row(param))
        for name, rows in groups.items():
            if rows:
                with formatter.section(name):
                    formatter.write_dl(rows, col_max=_column(formatter))
        if self.epilog:
            _paragraphs(formatter, self.epilog)


class Group(_Helpful, TyperGroup):
    """A group of commands whose epilog keeps its line breaks."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return ["[OPTIONS]", "COMMAND", "[ARGS]..."]

    def summary(self, ctx: Any, name: str) -> str:
        """The first sentence of a command's help."""
        command: Any = self.get_command(ctx, name)
        return " ".join(command.help.split()).split(". ")[0].rstrip(".")

    def format_help(self, ctx: Any, formatter: Any) -> None:
        _begin(self, ctx, formatter)
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.summary(ctx, name)) for name in self.list_commands(ctx)])
        with formatter.section("Options"):
            params: list[Any] = self.get_params(ctx)
            rows = [_row(param) for param in params if not param.hidden]
            formatter.write_dl(rows, col_max=_column(formatter))
        if self.epilog:
            _paragraphs(formatter, self.epilog)
