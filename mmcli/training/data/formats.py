"""Which format some data are in: found out by looking at them, or named."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mmcli.batch.manifest import NAME as MANIFEST
from mmcli.batch.manifest import read_records
from mmcli.errors import InputError, UsageError
from mmcli.example import Example
from mmcli.media.naming import printable, trouble
from mmcli.training.data import captions, coco, conversations, prompts, records, speech, voc, yolo
from mmcli.training.data.place import Place
from mmcli.training.data.rows import Read, Row, Unusable, checked, first_row, rows

TABLES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")  # what rows are in
YAML = (".yaml", ".yml")
METADATA = "metadata"  # what image folders call their rows, also in the folders of their splits
MOST_FILES = 1000  # of rows in a folder

Examples = Callable[[Row, str, Path, Place], Iterable[Example]]


@dataclass(frozen=True)
class RowFormat:
    """A format of rows that any kind of table may hold: how to tell it by a row's keys, and what a row gives."""

    name: str
    fits: Callable[[Row], bool]
    examples: Examples


# The first that fits a row is its format.
ROW_FORMATS = (
    RowFormat(records.NAME, records.fits, records.examples),
    RowFormat(conversations.NAME, conversations.fits, conversations.examples),
    RowFormat(prompts.NAME, prompts.fits, prompts.examples),
    RowFormat(captions.NAME, captions.fits, captions.examples),
    RowFormat(speech.NAME, speech.fits, speech.examples),
)
FORMATS = (*(one.name for one in ROW_FORMATS), coco.NAME, yolo.NAME, voc.NAME, captions.BESIDE)

Found = dict[str, Callable[[], Iterator[Read]]]  # formats that fit, and how the data are read as them


def find(place: Place, wanted: str | None = None) -> Iterator[Read]:
    """The rows of data, in the format that they are in, or in the `wanted` one.

    Raises InputError where there are no data or they are in no format, UsageError where they may be in several.
    """
    name = printable(str(place.path))
    if wanted is not None and wanted not in FORMATS:
        raise UsageError(f"There is no format {printable(wanted)}", f"Choose from {', '.join(FORMATS)}")
    try:
        place.path.stat()
    except (OSError, ValueError) as error:
        raise trouble(name, error) from error
    if not place.path.is_file() and not place.path.is_dir():
        raise InputError(f"{name} is neither a file nor a folder", "Name the data")
    if place.media is not None and not place.media.is_dir():
        raise InputError(f"{printable(str(place.media))} is no folder", "Name the one in which the pictures lie")
    found = _of_folder(place, wanted) if place.path.is_dir() else _of_file(place, wanted)
    if wanted is not None:
        if wanted not in found:
            raise InputError(f"{name} holds nothing of the format {wanted}", "Leave --format out to have it found")
        return found[wanted]()
    if len(found) > 1:
        raise UsageError(f"{name} may be data of several formats: {', '.join(found)}", "Choose one with --format")
    for read in found.values():
        return read()
    if place.path.is_file():
        raise InputError(f"{name} is in no format that is known", f"It can be one of {', '.join(FORMATS)}")
    do = "A folder may hold data.yaml, COCO's JSON, XML annotations, rows as .jsonl or .csv, or a .txt beside a picture"
    raise InputError(f"{name} holds no data in a format that is known", do)


def _of_file(place: Place, wanted: str | None) -> Found:
    path, suffix = place.path, place.path.suffix.lower()
    if suffix in YAML:
        return {yolo.NAME: lambda: yolo.read(path, place)}
    if suffix == ".xml":
        return {voc.NAME: lambda: voc.read(place)}
    if suffix == ".json" and coco.fits(path):
        return {coco.NAME: lambda: coco.read(path, place)}
    return _of_tables([path], place, wanted)


def _of_folder(place: Place, wanted: str | None) -> Found:
    folder = place.path
    found: Found = {}
    for path in sorted(folder.glob("*.y*ml")):
        if path.suffix in YAML and path.is_file() and yolo.fits(path):
            found[yolo.NAME] = lambda path=path: yolo.read(path, place)  # type: ignore[misc]
            break
    jsons = [path for part in ("*.json", "annotations/*.json", "*/_annotations*.json") for path in folder.glob(part)]
    cocos = [path for path in sorted(jsons)[:MOST_FILES] if coco.fits(path)]
    if cocos:
        found[coco.NAME] = lambda: _each(cocos, place)
    tables = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in TABLES]
    tables += sorted(path for suffix in TABLES for path in folder.glob(f"*/{METADATA}{suffix}"))
    tables = [path for path in tables if path.is_file() and path not in cocos]
    found |= _of_tables(tables[:MOST_FILES], place, wanted)
    annotations = next((path for path in voc.files(place) if voc.fits(path)), None)
    if annotations is not None:
        found[voc.NAME] = lambda: voc.read(place)
    if wanted == captions.BESIDE or captions.looks_like_text(folder):
        found[captions.BESIDE] = lambda: captions.read_beside(place)
    if (folder / MANIFEST).is_file() and (not found or wanted == records.NAME):  # beside a data set it has the same
        found[records.NAME] = lambda: _of_run(place)
    return found


def _of_tables(files: list[Path], place: Place, wanted: str | None) -> Found:
    """The formats of the rows of some files; with one that is wanted, all of them are taken to be in it."""
    own: dict[RowFormat, list[Path]] = {}
    for file in files:
        row = first_row(file)
        fitting = [one for one in ROW_FORMATS if row is not None and one.fits(row)]
        if wanted is not None:
            fitting = [one for one in ROW_FORMATS if one.name == wanted]
        for one in fitting[:1]:
            own.setdefault(one, []).append(file)
    return {one.name: lambda one=one: _rows(own[one], one, place) for one in own}  # type: ignore[misc]


def _each(files: list[Path], place: Place) -> Iterator[Read]:
    for path in place.chosen(files):
        yield from coco.read(path, place)


def _rows(files: list[Path], kind: RowFormat, place: Place) -> Iterator[Read]:
    for file in place.chosen(files):
        for where, row in rows(file, place.name(file)):
            yield from checked(where, lambda row=row, where=where, file=file: _made(row, where, file, kind, place))  # type: ignore[misc]


def _made(row: Row | Unusable, where: str, file: Path, kind: RowFormat, place: Place) -> Iterable[Example]:
    if isinstance(row, Unusable):
        raise row
    if not kind.fits(row):
        raise Unusable(f"it is no row of the format {kind.name}")
    return kind.examples(row, where, file, place)


def _of_run(place: Place) -> Iterator[Read]:
    """The records that a run of mmcli kept in its folder."""
    for row in read_records(place.path):
        where = f"the record of {printable(str(row.get('source')))}"
        yield from checked(where, lambda row=row, where=where: records.examples(row, where, place.path / "x", place))  # type: ignore[misc]
