"""COCO's annotations (cocodataset.org, "Data format"): one JSON file with images, categories and annotations.

Only where each annotation stands is kept in memory: it is parsed when its image's turn comes, so that a file of half a
gigabyte can be read.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmcli.errors import InputError
from mmcli.example import Example, Exchange, LabelledObject, Polygons, RunLengths
from mmcli.hub.fields import shown
from mmcli.media.naming import trouble
from mmcli.training.data.place import Place
from mmcli.training.data.rows import BadRow, JsonFile, Read, Row, Unusable, checked, parse
from mmcli.training.data.values import box, extent, label, numbers, polygons, run_lengths, size, text

NAME = "coco"
KEYS = ("images", "annotations", "categories")

Span = tuple[int, int]  # where in the file


@dataclass
class _Index:
    """Where in a file the parts of each image are."""

    images: dict[Any, Span] = field(default_factory=dict)
    annotations: dict[Any, list[Span]] = field(default_factory=lambda: defaultdict(list))
    categories: dict[Any, str] = field(default_factory=dict)
    bad: list[BadRow] = field(default_factory=list)


def fits(path: Path) -> bool:
    """Whether a .json file is of this format."""
    try:
        with JsonFile(path, path.name) as file:
            return next((key for key, _, _ in file.items()), None) in (*KEYS, "licenses", "videos")
    except OSError:
        return False
    except InputError:  # which is said when it is read
        with path.open("rb") as opened:
            head = opened.read(4096)
        return any(f'"{key}"'.encode() in head for key in KEYS)


def read(path: Path, place: Place) -> Iterator[Read]:
    """The images of a file, each with its objects, or each caption of it as an example of its own.

    Every object of the file's categories is taken to be marked, but for labels of which an image has a crowd, or that
    it says are not (LVIS: `not_exhaustive_category_ids`, `neg_category_ids`).
    """
    name = place.name(path)
    try:
        with JsonFile(path, name) as file:
            index = _indexed(file, name)
            yield from index.bad
            bases = _bases(path, place)
            for span in index.images.values():
                where, row = _named(file, span, name)

                def make(row: Row = row, where: str = where) -> Iterator[Example]:
                    own = [parse(file.bytes(*one)) for one in index.annotations.get(row["id"], ())]
                    yield from _examples(row, own, index.categories, where, lambda one: place.find(one, *bases))

                yield from checked(where, make)
    except OSError as error:
        raise trouble(name, error) from error


def _indexed(file: JsonFile, name: str) -> _Index:
    index = _Index()
    count: dict[str, int] = defaultdict(int)
    for key, start, end in file.items():
        if key not in KEYS:
            continue
        count[key] += 1
        where = f"{name}, {key} {count[key]}"
        try:
            _enter(index, key, parse(file.bytes(start, end)), (start, end))
        except Unusable as error:
            index.bad.append(BadRow(where, str(error)))
    for id in index.annotations.keys() - index.images.keys():
        lost = index.annotations.pop(id)
        index.bad.append(BadRow(name, f"{len(lost)} annotations are of the image {shown(id)}, which it does not have"))
    return index


def _enter(index: _Index, key: str, row: Row, span: Span) -> None:
    id = row.get("image_id" if key == "annotations" else "id")
    if isinstance(id, bool) or not isinstance(id, int | str):
        raise Unusable(f"its {'image_id' if key == 'annotations' else 'id'} is {shown(id)} and not a number or a text")
    if key == "annotations":
        index.annotations[id].append(span)
    elif id in (index.images if key == "images" else index.categories):
        raise Unusable(f"its id {shown(id)} is that of another of the {key}")
    elif key == "images":
        index.images[id] = span
    else:
        index.categories[id] = label(row.get("name"))


def _named(file: JsonFile, span: Span, name: str) -> tuple[str, Row]:
    row = parse(file.bytes(*span))
    return f"{name}, image {shown(row.get('id'))}", row


def _bases(path: Path, place: Place) -> list[Path]:
    """Where the pictures of a file may be: beside it, or in the folders of the usual layouts."""
    folders = [path.parent, path.parent / "images"]
    folders += [path.parent.parent] if path.parent.name == "annotations" else []
    for folder in list(folders)[-1:]:
        tail = path.stem.rpartition("_")[2]  # instances_train2017 → train2017
        folders += [folder / tail, folder / "images", folder / "images" / tail]
    return folders


def _examples(
    row: Row, annotations: list[Row], categories: dict[Any, str], where: str, find: Callable[[Any], Path]
) -> Iterator[Example]:
    image = (find(row.get("file_name")),)
    captions = [one for one in annotations if "caption" in one]
    for one in captions:
        yield Example("caption", where, image, exchanges=(Exchange(None, text(one["caption"], "caption").strip()),))
    if captions:
        return
    width, height = size(row)
    objects, crowds = [], set()
    for one in annotations:
        id = one.get("category_id")
        if not isinstance(id, int | str) or id not in categories:
            raise Unusable(f"an annotation is of the category {shown(id)}, which is not listed")
        name = categories[id]
        if one.get("iscrowd") in (1, True):
            crowds.add(name)
        else:
            objects.append(_object(one, name, width, height))
    masks = bool(objects) and all(found.mask is not None for found in objects)
    yield Example(
        "segment" if masks else "detect",
        where,
        image,
        objects=tuple(objects),
        exhaustive=frozenset(_exhaustive(row, categories, objects) - crowds),
        size=(width, height),
    )


def _exhaustive(row: Row, categories: dict[Any, str], objects: list[LabelledObject]) -> set[str]:
    if "neg_category_ids" not in row:
        return set(categories.values())
    listed: Any = row["neg_category_ids"], row.get("not_exhaustive_category_ids", [])
    if not all(isinstance(one, list) for one in listed):
        raise Unusable("its neg_category_ids are no list")
    absent, some = ({categories[id] for id in ids if isinstance(id, int | str) and id in categories} for ids in listed)
    return (absent | {found.label for found in objects}) - some


def _object(row: Row, name: str, width: int, height: int) -> LabelledObject:
    outline = row.get("segmentation")
    mask: Polygons | RunLengths | None = None
    if isinstance(outline, dict):
        mask = run_lengths(outline, width, height, name)
    elif outline:
        mask = polygons(outline, width, height, name)
    if row.get("bbox") is None and isinstance(mask, Polygons):
        return LabelledObject(name, box(extent(mask), 1, 1, name), mask)
    x, y, w, h = numbers(row.get("bbox"), f'the bbox of "{name}"', 4)
    return LabelledObject(name, box((x, y, x + w, y + h), width, height, name), mask)
