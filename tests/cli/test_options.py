import subprocess
import sys
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
import typer
from command import mmcli
from typer.core import TyperCommand
from typer.main import get_command

from mmcli.cli.help import Command
from mmcli.cli.options import one_of, option, spread


@dataclass(frozen=True)
class Size:
    width: Annotated[int, option("Size", "--width", help="How wide.")] = 3
    height: Annotated[int, option("Size", "--height", help="How high.")] = 4


def parsed(arguments: list[str]):
    app = typer.Typer()
    seen = []

    @app.command()
    @spread
    def command(name: str, loud: bool = False, *, size: Size) -> None:
        seen.append((name, loud, size))

    get_command(app).main(arguments, standalone_mode=False)
    return seen[0]


def test_a_group_of_options_arrives_as_one_value():
    assert parsed(["x"]) == ("x", False, Size())
    assert parsed(["x", "--loud", "--height", "9"]) == ("x", True, Size(3, 9))


@pytest.mark.parametrize(("value", "fine"), [("auto", True), ("cuda:3", True), ("cuda:", False), ("xauto", False)])
def test_one_of_takes_whole_matches_only(value, fine):
    check = one_of("auto", r"cuda:\d+")
    if fine:
        assert check(value) == value
    else:
        with pytest.raises(typer.BadParameter):
            check(value)


def taken(kind: type, arguments: list[str]):
    """What a command gets whose class is `kind`, or what is wrong with its command line."""
    app = typer.Typer()
    seen = []

    @app.command(cls=kind)
    def command(
        word: str,
        more: list[str] | None = None,
        name: Annotated[str | None, typer.Option(callback=lambda value: value and value.upper())] = "x",
        width: float = 3,
        many: Annotated[list[int] | None, typer.Option()] = None,
        level: Annotated[Literal["low", "high"] | None, typer.Option()] = None,
    ) -> None:
        seen.append((word, more, name, width, many, level))

    try:
        get_command(app).main(arguments, standalone_mode=False)
    except Exception as error:
        return type(error)
    return seen[0]


@pytest.mark.parametrize(
    "arguments",
    [
        ["a"],
        ["a", "b", "c", "--name", "d\udc80"],
        ["a", "--width", "2", "--many", "1", "--many", "2", "--level", "low"],
        ["a", "--width", "wide"],
        ["a", "--level", "none"],
        [],
    ],
)
def test_values_that_are_left_alone_are_what_typer_makes_of_them(arguments):
    assert taken(Command, arguments) == taken(TyperCommand, arguments)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--batch-size", "many"], "'many' is no whole number."),
        (["--batch-size", "1e3"], "'1e3' is no whole number."),
        (["--frames", ""], "'' is no whole number."),
        (["--top-k", "\udcff"], r"'\udcff' is no whole number."),
        (["--temperature", "hot"], "'hot' is no number."),
        (["--detail", "huge"], "'huge' is none of low, medium, high."),
    ],
)
def test_a_text_that_is_no_such_value_is_named(arguments, fault):
    done = mmcli("caption", "nothere.jpg", *arguments)
    assert done.code == 2 and done.err.strip().endswith(f"Invalid value for '{arguments[0]}': {fault}")


@pytest.mark.parametrize(
    "arguments",
    [
        ("caption", "a.jpg", "--files-from", ""),
        ("caption", "a.jpg", "--model", ""),
        ("caption", "a.jpg", "--adapter", ""),
        ("caption", "a.jpg", "--revision", ""),
        ("detect", "cat", "a.jpg", "--copy", "b.jpg", "--blur", ""),
        ("evaluate", ""),
        ("evaluate", "a.jsonl", "--media", ""),
        ("tune", "a.jsonl", "", "--output", "new"),
        ("tune", "a.jsonl", "--output", "new", "--replay", ""),
        ("tune", "a.jsonl", "--output", ""),
        ("tune", "check", ""),
        ("report", ""),
        ("report", "a.jsonl", "--output", ""),
        ("models", "convert", "nano", "--output", ""),
        ("models", "merge", "nano", "", "--output", "new"),
        ("models", "use", ""),
        ("inspect", ""),
    ],
)
def test_an_empty_name_is_no_name_of_this_folder(arguments):
    done = mmcli(*arguments)
    assert (done.code, done.out) == (2, "") and "it is empty; look for an unset variable" in done.err


def test_a_text_may_be_empty(tmp_path):
    done = mmcli("caption", "", tmp_path / "gone.jpg", "--prompt", "")
    assert done.code == 1 and "An input has an empty name" in done.err and "gone.jpg does not exist" in done.err


def test_text_and_what_is_not_given_are_not_converted():
    code = (
        "import sys\nfrom mmcli.cli.app import run\nrun(['caption', 'nothere.jpg', '-M', 'nano', '--json'])\n"
        "sys.exit('pydantic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
