"""What mmcli has written as JSON lines, perhaps corrected by hand: of a record only what is learned must be right."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmcli.escape import NAME as SHORT
from mmcli.escape import shorten
from mmcli.example import Example, Exchange, LabelledObject
from mmcli.hub.fields import shown
from mmcli.output.schema import SCHEMA
from mmcli.training.data.place import Place
from mmcli.training.data.rows import Row, Unusable
from mmcli.training.data.values import box, label, numbers, run_lengths, size, text

NAME = "records"
MOST_OBJECTS = 10_000


def fits(row: Row) -> bool:
    """Whether a row is a record."""
    return "schema" in row and "task" in row


def examples(row: Row, where: str, file: Path, place: Place) -> Iterator[Example]:
    """The example of a record. Its source is taken from where the file is, if it was not named in full."""
    task = row["task"]
    if row["schema"] != SCHEMA:
        raise Unusable(f"it is of schema {shown(row['schema'])}, and this version reads {SCHEMA}")
    if row.get("error") is not None:
        raise Unusable(f"its input failed: {shorten(str(row['error']), SHORT)}")
    if row.get("time") is not None:
        raise Unusable("it is about a frame of a video: save the frame as a picture")
    if task == "transcribe":
        path = place.find(row.get("source"), file.parent, what="source")
        yield Example(task, where, audio=(path,), exchanges=(Exchange(None, text(row.get("text"), "text")),))
    elif task in ("detect", "segment"):
        path = place.find(row.get("source"), file.parent, what="source")
        yield _objects(row, where, path)
    elif task in ("caption", "chat"):
        sources = row.get("source")
        paths = tuple(
            place.find(one, file.parent, what="source") for one in (sources if isinstance(sources, list) else [sources])
        )
        prompt = text(row.get("prompt"), "prompt") if task == "chat" else None
        yield Example(task, where, paths, exchanges=(Exchange(prompt, text(row.get("text"), "text")),))
    else:
        raise Unusable(f"its task is {shown(task)}, and it can be caption, detect, segment, chat or transcribe")


def _objects(row: Row, where: str, path: Path) -> Example:
    width, height = size(row)
    listed = row.get("objects")
    if not isinstance(listed, list) or len(listed) > MOST_OBJECTS:
        raise Unusable(f"its objects are {shown(listed)} and not a list of at most {MOST_OBJECTS:,}")
    objects = tuple(_object(one, width, height) for one in listed)
    asked = str(row.get("prompt") or "").removeprefix(row["task"]).split(";")
    labels = {one.strip() for one in asked} | {found.label for found in objects}
    return Example(
        row["task"], where, (path,), objects=objects, exhaustive=frozenset(labels - {""}), size=(width, height)
    )


def _object(entry: Any, width: int, height: int) -> LabelledObject:
    if not isinstance(entry, dict):
        raise Unusable(f"an object is {shown(entry)} and not a JSON object")
    name = label(entry.get("label"))
    edges = box(numbers(entry.get("box"), f'the box of "{name}"', 4), width, height, name)
    mask = entry.get("mask")
    return LabelledObject(name, edges, None if mask is None else run_lengths(mask, width, height, name))
