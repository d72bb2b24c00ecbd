"""Labels as Ultralytics' YOLO has them (docs.ultralytics.com, "Datasets"): data.yaml, and a text file an image."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmcli.errors import InputError
from mmcli.example import Example, LabelledObject
from mmcli.hub.fields import shown
from mmcli.media.folders import Unlisted, walk
from mmcli.media.naming import printable, trouble
from mmcli.media.sources import IMAGE_EXTENSIONS
from mmcli.training.data.place import Place, split_of
from mmcli.training.data.rows import Read, Unusable, checked
from mmcli.training.data.values import box, extent, label, number, polygons

NAME = "yolo"
SPLITS = ("train", "val", "test")
LARGEST = 1 << 20  # bytes of data.yaml
MOST_BYTES = 16 << 20  # of an image's labels
MOST_CLASSES = 100_000


def fits(path: Path) -> bool:
    """Whether a .yaml file tells of such data."""
    try:
        return "names" in _settings(path, path.name)
    except (OSError, InputError):
        return False


def read(path: Path, place: Place) -> Iterator[Read]:
    """The images that data.yaml names, each with its objects; one without a file of labels shows no object."""
    name = place.name(path)
    try:
        settings = _settings(path, name)
        names = _names(settings.get("names"), name)
        points = settings.get("kpt_shape") is not None
        for image in _images(settings, path, place):
            where = place.name(image)

            def make(image: Path = image, where: str = where) -> Iterator[Example]:
                found = place.find(image.name, image.parent)
                objects = tuple(_objects(_labels_of(found), names, points, place))
                masks = bool(objects) and all(one.mask is not None for one in objects)
                exhaustive = frozenset(names.values())
                yield Example("segment" if masks else "detect", where, (found,), objects=objects, exhaustive=exhaustive)

            yield from checked(where, make)
    except OSError as error:
        raise trouble(name, error) from error


def _settings(path: Path, name: str) -> dict[str, Any]:
    import yaml

    with path.open("rb") as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise InputError(f"{name} is larger than {LARGEST >> 20} MiB, which no data.yaml is", "Name another file")
    if data.count(b"*") > 1000 or data.count(b"[") + data.count(b"{") > 200_000:
        raise InputError(f"{name} is too intricate for a data.yaml", "Name another file")
    try:
        found = yaml.safe_load(data)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{name} is no YAML ({printable(what)})", "Mend it") from error
    if not isinstance(found, dict):
        raise InputError(f"{name} holds no settings", 'It should have "names" and "train"')
    return found


def _names(found: Any, file: str) -> dict[int, str]:
    listed = dict(enumerate(found)) if isinstance(found, list) else found
    if not isinstance(listed, dict) or not 0 < len(listed) <= MOST_CLASSES:
        raise InputError(f"{file} sets names to {shown(found)}", "It should list the names of the classes")
    names = {}
    for id, name in listed.items():
        try:
            names[int(id)] = label(str(name))
        except (ValueError, TypeError) as error:
            raise InputError(f"{file} has a class that is no name: {printable(str(error))}") from error
    if len(set(names.values())) < len(names):
        raise InputError(f"{file} has two classes of one name", "Give each a name of its own")
    return names


def _images(settings: dict[str, Any], path: Path, place: Place) -> Iterator[Path]:
    """The images of the wanted split, which are those in its folders, or those that its lists name."""
    base = path.parent
    if isinstance(settings.get("path"), str) and (base / settings["path"]).is_dir():
        base = base / settings["path"]
    splits: dict[str | None, list[Path]] = {}
    for split in SPLITS:
        given = settings.get(split)
        for one in given if isinstance(given, list) else [given] if given else []:
            if not isinstance(one, str):
                raise InputError(
                    f"{place.name(path)} sets {split} to {shown(one)}", "It should name a folder or a list"
                )
            splits.setdefault(split_of([split]), []).append(_there(base, one))
    if not splits:
        raise InputError(f"{place.name(path)} names no images", 'It should have "train"')
    for folder in place.of_splits(splits):
        yield from _in_folder(folder, place) if folder.is_dir() else _in_list(folder, place)


def _there(base: Path, name: str) -> Path:
    """A folder or a list that data.yaml names; "../train/images" is often meant from the folder itself."""
    plain = base / name
    inner = base / name.removeprefix("../")
    return plain if plain.exists() or not inner.exists() else inner


def _in_folder(folder: Path, place: Place) -> Iterator[Path]:
    if not place.allowed(folder):
        raise InputError(f"{printable(str(folder))} lies outside the data's folder", "Name it with --media FOLDER")
    for entry in walk(str(folder)):
        if isinstance(entry, Unlisted):
            raise trouble(entry.path, entry.error)
        if Path(entry.name).suffix.lower() in IMAGE_EXTENSIONS:
            yield Path(entry.path)


def _in_list(file: Path, place: Place) -> Iterator[Path]:
    if not file.is_file():
        raise InputError(f"{printable(str(file))}, which data.yaml names, does not exist", "Check its train and val")
    if not place.allowed(file):
        raise InputError(f"{printable(str(file))} lies outside the data's folder", "Name it with --media FOLDER")
    with file.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
        for line in lines:
            if line.strip():
                yield file.parent / line.strip()


def _labels_of(image: Path) -> Path:
    """Where an image's labels are: `images` in its path becomes `labels`, for the last time that it is there."""
    parts = list(image.with_suffix(".txt").parts)
    at = next((i for i in reversed(range(len(parts) - 1)) if parts[i] == "images"), None)
    if at is not None:
        parts[at] = "labels"
    return Path(*parts)


def _objects(file: Path, names: dict[int, str], points: bool, place: Place) -> Iterator[LabelledObject]:
    if not file.exists():
        return
    with place.find(file.name, file.parent, what="file of labels").open("rb") as opened:
        data = opened.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise Unusable(f"its labels are longer than {MOST_BYTES >> 20} MiB")
    for count, line in enumerate(data.decode("utf-8-sig", "replace").splitlines(), 1):
        if words := line.split():
            try:
                yield _object(words, names, points)
            except Unusable as error:
                raise Unusable(f"in line {count} of its labels {error}") from None


def _object(words: list[str], names: dict[int, str], points: bool) -> LabelledObject:
    values = [number(word, "a value") for word in words]
    name = names.get(int(values[0])) if values[0] == int(values[0]) else None
    if name is None:
        raise Unusable(f"the class is {shown(words[0])}, and data.yaml names {len(names)}")
    shares = values[1:5] if points else values[1:]
    if len(shares) == 4:
        x, y, w, h = shares
        return LabelledObject(name, box((x - w / 2, y - h / 2, x + w / 2, y + h / 2), 1, 1, name))
    if len(shares) < 6 or len(shares) % 2:
        raise Unusable(f"there are {len(words)} numbers, which are neither a box nor an outline")
    mask = polygons([shares], 1, 1, name)
    return LabelledObject(name, box(extent(mask), 1, 1, name), mask)
