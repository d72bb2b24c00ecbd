"""Annotations of PASCAL VOC (its devkit's readme): an XML file an image, edges as whole pixels counted from 1."""

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from xml.parsers import expat

from mmcli.errors import InputError
from mmcli.example import Example, LabelledObject
from mmcli.media.folders import Unlisted, walk
from mmcli.media.image import load_image
from mmcli.media.naming import trouble
from mmcli.media.sources import one_named
from mmcli.training.data.place import Place, split_of
from mmcli.training.data.rows import Read, Unusable, checked
from mmcli.training.data.values import box, label, number, side

NAME = "voc"
LARGEST = 4 << 20  # bytes of an annotation
MOST_ELEMENTS = 200_000
SMALL = 64  # pixels a side that an image is decoded to, where its size alone is wanted


def files(place: Place) -> list[Path]:
    """The annotations: those in `Annotations/`, or all XML files in and below the folder."""
    if place.path.is_file():
        return [place.path]
    found = []
    folder = place.path / "Annotations"
    for entry in walk(str(folder if folder.is_dir() else place.path)):
        if isinstance(entry, Unlisted):
            raise trouble(entry.path, entry.error)
        if entry.name.lower().endswith(".xml"):
            found.append(Path(entry.path))
    return found


def fits(path: Path) -> bool:
    """Whether an XML file is such an annotation."""
    try:
        return _tree(path).tag == "annotation"
    except (OSError, Unusable):
        return False


def read(place: Place) -> Iterator[Read]:
    """The annotated images of the wanted split. Every object of a label that any file has is taken to be marked."""
    own = _of_split(files(place), place)
    labels = frozenset(name for path in own for name in _labels(path))
    for path in own:

        def make(path: Path = path) -> Iterator[Example]:
            yield _example(path, place, labels)

        yield from checked(place.name(path), make)


def _of_split(found: list[Path], place: Place) -> list[Path]:
    """Those files that a list in `ImageSets/Main` (train.txt, val.txt) or their folder counts to the wanted split."""
    lists = place.path / "ImageSets" / "Main"
    if not lists.is_dir():
        return place.chosen(found)
    splits: dict[str | None, list[Path]] = {}
    stems = {path.stem: path for path in found}
    for name in ("train", "val", "test"):
        if (file := lists / f"{name}.txt").is_file():
            with file.open(encoding="utf-8-sig", errors="replace") as lines:
                named = [line.strip() for line in lines if line.strip()]
            named = [one if one in stems else one.split()[0] for one in named]  # lists of a class have a number behind
            splits[split_of([name])] = [stems[one] for one in named if one in stems]
    return place.of_splits(splits or {None: found})


def _tree(path: Path) -> ET.Element:
    """The elements of an XML file, which may declare no entities: those could name other files, or fill the memory."""
    with path.open("rb") as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise Unusable(f"it is larger than {LARGEST >> 20} MiB")
    builder, parser = ET.TreeBuilder(), expat.ParserCreate()
    left = MOST_ELEMENTS

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Unusable(f"it has more than {MOST_ELEMENTS:,} elements")
        builder.start(name, attributes)

    def refuse(*_: object) -> None:
        raise Unusable("it declares a document type, which may hide other files: delete its DOCTYPE")

    parser.StartElementHandler, parser.EndElementHandler = start, builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(data, True)
        return builder.close()
    except (expat.ExpatError, AssertionError, ValueError) as error:
        if isinstance(error, Unusable):
            raise
        raise Unusable(f"it is no XML ({error})") from None


def _labels(path: Path) -> set[str]:
    try:
        return {label(one.findtext("name")) for one in _tree(path).iter("object")}
    except (OSError, Unusable):  # said when its turn comes
        return set()


def _example(path: Path, place: Place, labels: frozenset[str]) -> Example:
    root = _tree(path)
    if root.tag != "annotation":
        raise Unusable(f"it is of {root.tag[:40]!r} and not an annotation")
    named, below = root.findtext("filename") or "", root.findtext("folder") or ""
    bases = [path.parent, path.parent.parent / "JPEGImages", path.parent.parent / "images", path.parent.parent]
    if place.path.is_dir():
        bases += [place.path / "JPEGImages", place.path]
    if place.media is not None and below:
        bases.append(place.media / below)
    image = place.find(named if Path(named).suffix else f"{path.stem}.jpg", *bases)
    width, height = _size(root, image)
    objects = tuple(_object(one, width, height) for one in root.iter("object"))
    return Example("detect", place.name(path), (image,), objects=objects, exhaustive=labels, size=(width, height))


def _size(root: ET.Element, image: Path) -> tuple[int, int]:
    """The image's width and height, its own where the file tells none: some tools leave them at 0."""
    told = root.findtext("size/width"), root.findtext("size/height")
    if any((one or "0").strip() != "0" for one in told):
        return side(told[0], "width"), side(told[1], "height")
    try:
        found = load_image(one_named(str(image)), side=SMALL)
    except InputError as error:
        raise Unusable(f"it tells no size, and of its picture none is known: {error.what}") from None
    return found.width, found.height


def _object(element: ET.Element, width: int, height: int) -> LabelledObject:
    name = label(element.findtext("name"))
    edges = [
        number(element.findtext(f"bndbox/{edge}"), f'{edge} of "{name}"') for edge in ("xmin", "ymin", "xmax", "ymax")
    ]
    return LabelledObject(name, box((max(edges[0] - 1, 0), max(edges[1] - 1, 0), *edges[2:]), width, height, name))
