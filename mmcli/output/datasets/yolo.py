"""Labels as Ultralytics' YOLO reads them (docs.ultralytics.com, "Datasets"): a text file an image, and data.yaml.

A line is a class's number, from 0, and its box as centre and size, or its outline as points, in shares of the image's
sides. An image without objects has an empty file. `images/` holds the images, `labels/` the same tree of labels; where
that tree has folders called `images` itself, the last of them has a `labels` beside it: there YOLO looks for them.
"""

from collections.abc import Iterable, Iterator

from mmcli.output.datasets.items import Files, Item, Items
from mmcli.output.json_text import to_json
from mmcli.output.schema import Object


def files(items: Items, names: list[str]) -> Files:
    """`data.yaml` and the labels of each image."""
    yield "data.yaml", _data(names)
    ids = {name: id for id, name in enumerate(names)}
    for item in items():
        yield _place(item), _labels(item, ids)


def _place(item: Item) -> str:
    """Where YOLO looks for an image's labels: in the path of the image the last folder `images` is replaced."""
    *folders, name = "images", *item.label.parts
    last = max(place for place, folder in enumerate(folders) if folder == "images")
    folders[last] = "labels"
    return "/".join((*folders, f"{name}.txt"))


def _data(names: list[str]) -> Iterator[str]:
    # Without `path` places are taken from where this file lies; "." would be wherever Python was started.
    yield "train: images\nval: images\nnames:\n"
    for id, name in enumerate(names):
        yield f"  {id}: {to_json(name)}\n"  # a string of JSON is one of YAML


def _labels(item: Item, ids: dict[str, int]) -> Iterator[str]:
    size = item.record.width or 1, item.record.height or 1
    for found in item.record.objects:
        numbers = " ".join(f"{min(max(one, 0), 1):.6f}".rstrip("0").rstrip(".") for one in _shares(found, *size))
        yield f"{ids[found.label]} {numbers}\n"


def _shares(found: Object, width: int, height: int) -> Iterable[float]:
    """Of the sides: x and y of the outline's points, or of the box centre x, centre y, width and height."""
    from mmcli.output.outlines import outline

    points = outline(found.mask) if found.mask is not None else []
    if points:
        return [share for x, y in points for share in (x / width, y / height)]
    x0, y0, x1, y1 = found.box
    return (x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height
