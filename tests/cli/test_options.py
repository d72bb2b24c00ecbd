from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.main import get_command

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
