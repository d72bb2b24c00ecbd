"""The arguments that commands share."""

import os
from collections.abc import Callable
from typing import Annotated

import typer

from mmcli.cli.options import option
from mmcli.errors import UsageError
from mmcli.models.offered import such_as
from mmcli.tasks.detect import tidy_labels


def _labels(value: str) -> str:
    tidy = tidy_labels(value)
    if not tidy:
        raise typer.BadParameter('it is empty; name what to find, such as "cat" or "cat ; dog".')
    if os.path.isfile(value):
        raise typer.BadParameter(f"{value!r} is a file; name what to find first, then the pictures.")
    return tidy


MinScore = Annotated[
    float | None,
    option(
        "Answer",
        "--min-score",
        metavar="P",
        help="Leave out objects that are right with a probability below P (default: the model's own limit; for models "
        f"that give probabilities, as {such_as('probabilities')} does).",
    ),
]
Beams = Annotated[
    int | None,
    option(
        "Answer",
        "--beams",
        metavar="N",
        help="Follow the N likeliest answers and take the best (default: as suits the model; 1: the likeliest token at "
        "every step).",
    ),
]
Images = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="IMAGE",
        help="Files, folders (with all below them), globs in quotes, http addresses, or - for stdin.",
        show_default=False,
    ),
]


def _labels_or(switch: str, flag: str) -> Callable[[typer.Context, str | None], str | None]:
    """A check of what to find; where the parameter `switch` is set (by `flag`) it is the first input."""

    def check(ctx: typer.Context, value: str | None) -> str | None:
        if ctx.params.get(switch):
            return value
        if value is None:
            raise UsageError("Nothing was named to look for", f'Name it first, such as "cat", or give {flag}')
        return _labels(value)

    return check


LabelsOrAll = Annotated[
    str | None,
    typer.Argument(
        metavar="THINGS",
        help='What to find: "cat", or several as "cat ; dog"; nothing with --all.',
        callback=_labels_or("every", "--all"),
        show_default=False,
    ),
]
LabelsOrResults = Annotated[
    str | None,
    typer.Argument(
        metavar="THINGS",
        help='What to find: "cat", or several as "cat ; dog"; nothing with --from-boxes.',
        callback=_labels_or("from_boxes", "--from-boxes"),
        show_default=False,
    ),
]
Results = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="RESULTS…",
        help="Files of JSON lines, folders that a run wrote into, or - for stdin.",
        show_default=False,
    ),
]
