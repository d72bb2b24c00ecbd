"""Annotations of labelme (its `label_file.py`): a JSON file an image, which names the image and holds its shapes."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmcli.output.datasets.items import Files, Item, Items
from mmcli.output.json_text import to_json
from mmcli.output.schema import Object

FORMAT = "5.5.0"  # the version of labelme whose form this is


def files(items: Items, folder: Path) -> Files:
    """A file for each image in the images' tree."""
    for item in items():
        place = f"{item.label.as_posix()}.json"
        yield place, _document(item, folder / place)


def _document(item: Item, file: Path) -> Iterator[str]:
    image = item.place.name
    if item.path is not None:
        image = os.path.relpath(item.path, os.path.realpath(file.parent))
    record = item.record
    entry: dict[str, Any] = {"version": FORMAT, "flags": {}, "shapes": [_shape(found) for found in record.objects]}
    entry |= {"imagePath": image, "imageData": None, "imageHeight": record.height, "imageWidth": record.width}
    yield to_json(entry, indent=2) + "\n"


def _shape(found: Object) -> dict[str, Any]:
    from mmcli.output.outlines import outline

    x0, y0, x1, y1 = (round(edge, 2) for edge in found.box)
    points: list[list[float]] = [[x, y] for x, y in outline(found.mask)] if found.mask is not None else []
    kind = "polygon" if points else "rectangle"
    entry = {"label": found.label, "points": points or [[x0, y0], [x1, y1]], "group_id": None, "description": ""}
    return entry | {"shape_type": kind, "flags": {}}
