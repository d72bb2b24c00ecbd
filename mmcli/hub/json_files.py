"""The JSON and text files of a checkpoint: of a bounded size and depth, in characters that exist."""

import json
import re
from pathlib import Path
from typing import Any

from mmcli.errors import ModelError
from mmcli.hub.other_formats import not_the_content

LARGEST = 16_000_000  # bytes; the largest published ones have one million
MOST_PIECES = 3_000_000  # values in it: each takes up to 300 bytes of memory, whatever it took in the file
DEEPEST = 64  # objects and lists within each other

AGAIN = "Download the model again"
_HALF = re.compile("[\ud800-\udfff]")  # JSON can spell halves of characters, which nothing can print


def read_json(path: Path, largest: int = LARGEST) -> dict[str, Any]:
    """The object in a JSON file, with or without a byte order mark. Raises ModelError where there is none."""
    data = _read(path, largest)
    try:
        return parse_json(data)
    except ValueError as error:
        raise ModelError(f"{path} cannot be read ({not_the_content(data[:64]) or error})", AGAIN) from error


def read_text(path: Path, largest: int = LARGEST) -> str:
    """A file's text: UTF-8, with or without a byte order mark, or UTF-16 with one. Raises ModelError."""
    data = _read(path, largest)
    try:
        return data.decode("utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
    except ValueError as error:
        raise ModelError(f"{path} cannot be read ({error})", AGAIN) from error


def _read(path: Path, largest: int) -> bytes:
    if not path.is_file():  # nor would a pipe or a device ever come to an end
        what = f"{path} is no file" if path.exists() else f"{path.parent} has no {path.name}"
        raise ModelError(f"{what}, so it is not a complete model", "Name another folder")
    try:
        with path.open("rb") as file:
            data = file.read(largest + 1)
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror})") from error
    if len(data) > largest:
        raise ModelError(f"{path} is larger than any such file should be ({largest / 1e6:.0f} MB)", AGAIN)
    return data


def parse_json(data: bytes, unique: bool = False) -> dict[str, Any]:
    """The object that some bytes of JSON spell; with `unique`, no key may come twice in an object.

    Raises ValueError, in words, for all that is none: damaged, too deep, or with characters that do not exist.
    """
    if sum(data.count(mark) for mark in (b"{", b"[", b",")) > MOST_PIECES:
        raise ValueError(f"it holds more than {MOST_PIECES} values")
    try:
        content = json.loads(data, object_pairs_hook=_once if unique else None)
    except RecursionError:  # far deeper than DEEPEST
        raise ValueError(f"it is nested more than {DEEPEST} deep") from None
    if not isinstance(content, dict):
        raise ValueError("it holds no JSON object")
    _check(content)
    return content


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"it names {next(key for key in found if keys.count(key) > 1)!r} twice")
    return found


def _check(content: dict[str, Any]) -> None:
    """Raise ValueError for what is too deep or holds half characters; level by level, so that no depth is too deep."""
    level: list[Any] = [content]
    for _ in range(DEEPEST):
        below: list[Any] = []
        for part in level:
            if isinstance(part, dict):
                below += part
                below += part.values()
            elif isinstance(part, list):
                below += part
            elif isinstance(part, str) and not part.isascii() and _HALF.search(part):
                raise ValueError(f"it holds {part[:20]!a}, which is no text")
        level = below
        if not level:
            return
    raise ValueError(f"it is nested more than {DEEPEST} deep")
