"""Captions: rows that name a picture and what it shows (`metadata.jsonl` of image folders), or a .txt beside it."""

from collections.abc import Iterator
from pathlib import Path

from mmcli.example import Example, Exchange
from mmcli.media.folders import Unlisted, walk
from mmcli.media.naming import trouble
from mmcli.media.sources import AUDIO_EXTENSIONS, IMAGE_EXTENSIONS
from mmcli.training.data.place import Place
from mmcli.training.data.rows import BadRow, Read, Row, Unusable, checked
from mmcli.training.data.values import LONGEST_TEXT, text

NAME = "imagefolder"
BESIDE = "text-beside"
FILES = ("file_name", "image", "audio")
TEXTS = ("text", "caption", "transcription")


def fits(row: Row) -> bool:
    """Whether a row is one of an image folder's metadata."""
    return "file_name" in row or ("image" in row and any(key in row for key in TEXTS))


def examples(row: Row, where: str, file: Path, place: Place) -> Iterator[Example]:
    """The example of a row; several captions in a list are an example each."""
    key = next(key for key in FILES if key in row)
    path = place.find(row[key], file.parent, what=key)
    found = next((row[key] for key in TEXTS if row.get(key) is not None), None)
    for one in found if isinstance(found, list) and found else [found]:
        yield _example(path, where, text(one, "text or caption").strip())


def _example(path: Path, where: str, words: str) -> Example:
    exchanges = (Exchange(None, words),)
    if path.suffix.lower() in AUDIO_EXTENSIONS:
        return Example("transcribe", where, audio=(path,), exchanges=exchanges)
    return Example("caption", where, (path,), exchanges=exchanges)


# -- texts beside pictures ---------------------------------------------------------------------------------------


def beside(folder: Path) -> Iterator[tuple[Path, Path]]:
    """The pictures and recordings in and below a folder, each with where its text would be."""
    for entry in walk(str(folder)):
        if isinstance(entry, Unlisted):
            raise trouble(entry.path, entry.error)
        path = Path(entry.path)
        if path.suffix.lower() in IMAGE_EXTENSIONS | AUDIO_EXTENSIONS:
            yield path, path.with_suffix(".txt")


def looks_like_text(folder: Path) -> bool:
    """Whether the first picture with a .txt beside it has words in it, and no numbers of boxes."""
    for _, file in beside(folder):
        if file.is_file():
            with file.open("rb") as opened:
                words = opened.read(4096).decode("utf-8", "replace").split()
            return not words or not all(word.lstrip("-").replace(".", "", 1).isdigit() for word in words)
    return False


def read_beside(place: Place) -> Iterator[Read]:
    """A folder's pictures and recordings, each with the text in the .txt of its name."""
    folder = place.path
    texts = {path: file for path, file in beside(folder)}
    for path in place.chosen(texts):
        name = place.name(path)

        def make(path: Path = path) -> Iterator[Example]:
            here = place.find(path.name, path.parent, what="picture")
            yield _example(here, place.name(path), _text_in(texts[path], place))

        yield from checked(name, make)


def _text_in(file: Path, place: Place) -> str:
    if not file.is_file():
        raise Unusable(f"there is no {file.name} beside it")
    with place.find(file.name, file.parent, what="text").open("rb") as opened:
        data = opened.read(4 * LONGEST_TEXT + 1)
    words = data.decode("utf-8-sig", "surrogateescape")
    return " ".join(text(words, f"text ({file.name})").split())


__all__ = ["BESIDE", "NAME", "BadRow", "examples", "fits", "looks_like_text", "read_beside"]
