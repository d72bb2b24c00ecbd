"""Data with answers, as commands take them that train and measure: their options, and reading them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmcli.cli.environment import Environment
from mmcli.cli.options import option
from mmcli.errors import InputError, UsageError

if TYPE_CHECKING:
    from mmcli.training.data import Data

NAMED = 20  # bad rows that are named one by one

DataArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="DATA",
        help="Files or folders of examples with their answers: COCO, YOLO, Pascal VOC; rows (.jsonl, .csv) of pictures "
        "with captions, of prompts and answers, of conversations, or of recordings and what is said; pictures with a "
        ".txt beside each; results of mmcli, perhaps corrected.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class DataOptions:
    """In which format data are, and where what they name lies."""

    format: Annotated[
        str | None,
        option("Data", "--format", metavar="NAME", help="The format of the data (default: it is found out)."),
    ] = None
    media: Annotated[
        str | None,
        option(
            "Data",
            "--media",
            metavar="FOLDER",
            help="Where pictures and recordings lie that are not in the data's own folder. Without it, paths and links "
            "that lead out of that folder are not followed.",
        ),
    ] = None
    split: Annotated[
        str | None, option("Data", "--split", metavar="NAME", help="Which part of the data: train, val or test.")
    ] = None
    max_bad: Annotated[
        str,
        option(
            "Data",
            "--max-bad",
            metavar="N|N%",
            help="Go on with so many bad rows, or such a share of them (default 10%). Each is named.",
        ),
    ] = "10%"


def read_data(
    environment: Environment, names: Sequence[str], options: DataOptions, prefer: tuple[str, ...], *, check: bool = True
) -> "Data":
    """The examples of all data that are named, and their bad rows, which are said on stderr.

    `prefer` are the splits that are taken where none is named. With `check` the pictures and recordings are opened, and
    more bad rows than are allowed are an InputError.
    """
    from mmcli.training.data import Allowance, Data, gather, read_examples
    from mmcli.training.data.media import opened

    allowed = Allowance.of(options.max_bad)
    media = None if options.media is None else Path(options.media).expanduser()
    found = Data()
    for name in names:
        rows = read_examples(
            Path(name).expanduser(), format=options.format, media=media, split=options.split, prefer=prefer
        )
        own = gather(opened(rows) if check else rows, allowed, name)
        found.examples += own.examples
        found.bad += own.bad
    for bad in found.bad[:NAMED]:
        environment.note(f"mmcli: left out: {bad}")
    if len(found.bad) > NAMED:
        environment.note(f"mmcli: left out: {len(found.bad) - NAMED:,} more rows")
    if not found.examples:
        raise InputError("No data were named")
    return found


def not_among(output: str, data: Sequence[str]) -> None:
    """Raise UsageError where what is written would take the place of a file in the data's folder, or of data."""
    place = Path(output)
    if not place.exists():
        return
    for name in data:
        root = Path(name).expanduser().resolve()
        if place.resolve().is_relative_to(root):
            raise UsageError(f"--output would write over {output}, which is among the data", "Choose another place")
