"""Rows with a picture, a prefix and a suffix: what a prefix language model is asked, and what it is to answer."""

from collections.abc import Iterator
from pathlib import Path

from mmcli.example import Example, Exchange
from mmcli.hub.fields import shown
from mmcli.training.data.place import Place
from mmcli.training.data.rows import Row, Unusable
from mmcli.training.data.values import text

NAME = "prefix-suffix"
TASKS = {"caption": "caption", "describe": "caption", "detect": "detect", "segment": "segment"}  # by the first word


def fits(row: Row) -> bool:
    """Whether a row is of this format."""
    return "suffix" in row and "prefix" in row


def examples(row: Row, where: str, file: Path, place: Place) -> Iterator[Example]:
    """The example of a row. Places and masks in its suffix stay the text that they are."""
    prefix, named = row.get("prefix"), row.get("image")
    if not isinstance(prefix, str):
        raise Unusable(f"its prefix is {shown(prefix)} and not a text")
    suffix = text(row.get("suffix"), "suffix")
    images = tuple(place.find(one, file.parent) for one in (named if isinstance(named, list) else [named]))
    task = TASKS.get(prefix.split(" ", 1)[0].strip().lower(), "chat" if prefix.strip() else "caption")
    yield Example(task, where, images, exchanges=(Exchange(prefix, suffix),))
