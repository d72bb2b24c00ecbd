"""COCO's annotations (cocodataset.org, "Data format"): one JSON file, masks run-length encoded as pycocotools does.

The annotations have a score too, so that they are read as results as well: `coco.loadRes(data["annotations"])`.
"""

import json
import math
from collections.abc import Iterator
from typing import Any

from mmcli.output.datasets.items import Files, Items
from mmcli.output.json_text import to_json
from mmcli.output.schema import Object
from mmcli.version import __version__

FILE = "annotations.json"


def files(items: Items, names: list[str]) -> Files:
    """Images are numbered from 1 in their order, categories from 1 in the order of `names`."""
    yield FILE, _document(items, names)


def _document(items: Items, names: list[str]) -> Iterator[str]:
    categories = [{"id": id, "name": name, "supercategory": ""} for id, name in enumerate(names, 1)]
    info = {"description": f"Found by {_models(items)}", "version": __version__}
    yield f'{{"info": {json.dumps(info)}, "licenses": [], "categories": {to_json(categories)},\n"images": ['
    yield from _joined(_images(items))
    yield '],\n"annotations": ['
    yield from _joined(_annotations(items, {name: id for id, name in enumerate(names, 1)}))
    yield "]}\n"


def _models(items: Items) -> str:
    return ", ".join(dict.fromkeys(item.record.model for item in items()))


def _joined(entries: Iterator[dict[str, Any]]) -> Iterator[str]:
    for number, entry in enumerate(entries):
        yield (",\n" if number else "\n") + to_json(entry)


def _images(items: Items) -> Iterator[dict[str, Any]]:
    for number, item in enumerate(items(), 1):
        size = {"width": item.record.width, "height": item.record.height}
        yield {"id": number, "file_name": item.place.as_posix(), **size}


def _annotations(items: Items, ids: dict[str, int]) -> Iterator[dict[str, Any]]:
    number = 0
    for image, item in enumerate(items(), 1):
        for found in item.record.objects:
            number += 1
            yield {"id": number, "image_id": image, "category_id": ids[found.label], **_places(found)}


def _places(found: Object) -> dict[str, Any]:
    x0, y0, x1, y1 = found.box
    box = [round(edge, 2) for edge in (x0, y0, x1 - x0, y1 - y0)]
    entry: dict[str, Any] = {"bbox": box, "area": round(box[2] * box[3], 2), "iscrowd": 0, "score": score_of(found)}
    if found.mask is not None:
        entry["segmentation"] = {"size": list(found.mask.size), "counts": found.mask.counts}
        entry["area"] = int(found.mask.pixels.sum())
    return entry


def score_of(found: Object) -> float:
    """From 0 to 1, the better the higher: the probability, else the mean probability of the object's own tokens."""
    if found.probability is not None:
        return round(found.probability, 4)
    return 1.0 if found.score is None else round(math.exp(found.score), 6)
