"""What the page shows of each record, as small as it gets: a thumbnail, places in shares of a thousandth, texts."""

import base64
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from mmcli.boxes import overlap
from mmcli.errors import InputError
from mmcli.media.image import load_image
from mmcli.media.sources import IMAGE_EXTENSIONS, expand
from mmcli.output.outlines import outline
from mmcli.output.schema import Object, Record

THUMBNAIL = 320  # pixels of the longer side
QUALITY = 70  # of its WebP
SAME = 0.5  # overlap from which two boxes of one label are the same thing found twice

Entry = dict[str, Any]


def entries(
    records: Iterable[Record], page: Path, roots: Sequence[Path], others: Iterable[Record] | None = None
) -> Iterator[Entry]:
    """An entry for each record, in order; with `others`, the same inputs' records by another model, compared.

    `page` is the file that the page will be: links are relative to it. `roots` are the folders in which inputs are
    looked for by the names in the records. An input that is not there any more has no thumbnail and no link.
    """
    beside = None if others is None else {_key(record): record for record in others}
    for record in records:
        entry = _entry(record, page, roots)
        if beside is not None:
            other = beside.pop(_key(record), None)
            _compare(entry, record, other)
        yield entry
    for other in (beside or {}).values():
        entry = _entry(other, page, roots)
        _compare(entry, None, other)
        yield entry


def _key(record: Record) -> tuple[str, str]:
    return str(record.source), record.task


def _entry(record: Record, page: Path, roots: Sequence[Path]) -> Entry:
    name = record.source if isinstance(record.source, str) else " + ".join(record.source or ()) or "—"
    entry: Entry = {"name": name, "task": record.task, "model": record.model, "text": record.text}
    path = _find(record.source, roots)
    if path is not None:
        entry["href"] = link(path, page)
    if record.error is not None:
        return entry | {"error": record.error}
    if record.segments or record.timestamps is not None:
        segments = [[round(one.start, 2), round(one.end, 2), one.text] for one in record.segments]
        return entry | {"segments": segments, "seconds": record.seconds}
    entry |= {"w": record.width, "h": record.height}
    entry["objects"] = [_object(one, record) for one in record.objects]
    if path is not None and (thumbnail := _thumbnail(path)):
        entry["thumb"] = thumbnail
    return entry


def _object(found: Object, record: Record) -> Entry:
    """Label, score and places: x and y in thousandths of the sides."""
    across, down = 1000 / max(record.width or 1, 1), 1000 / max(record.height or 1, 1)
    box = [round(edge * (down if i % 2 else across)) for i, edge in enumerate(found.box)]
    entry: Entry = {"label": found.label, "box": box}
    score = found.probability if found.probability is not None else found.score
    if score is not None:
        entry["score"] = round(score, 3)
    if found.mask is not None:
        entry["points"] = [n for x, y in outline(found.mask) for n in (round(x * across), round(y * down))]
    return entry


def _compare(entry: Entry, one: Record | None, other: Record | None) -> None:
    """Mark for each object which of two records has it: "a", "b" or both; without any, the other text."""
    mine, theirs = (list(record.objects) if record else [] for record in (one, other))
    found = []
    left = list(theirs)
    for thing in mine:
        same = (rival for rival in left if rival.label == thing.label and overlap(rival.box, thing.box) >= SAME)
        match = max(same, key=lambda rival: overlap(rival.box, thing.box), default=None)
        if match is not None:
            left.remove(match)
        assert one is not None
        found.append(_object(thing, one) | {"in": "ab" if match is not None else "a"})
    if other is not None:
        found += [_object(thing, other) | {"in": "b"} for thing in left]
        # The text of an answer with objects is where they are, and they are compared already.
        if other.error is not None or not found and (one is None or other.text != one.text):
            entry["other"] = other.error or other.text or ""
    entry["objects"] = found
    entry["differs"] = one is None or other is None or "other" in entry or any(x["in"] != "ab" for x in found)


def _find(source: Any, roots: Sequence[Path]) -> Path | None:
    """The file of an input by the name that its record has, below the first of `roots` that has it."""
    if not isinstance(source, str) or "://" in source or source in ("", "-"):
        return None
    for root in roots:
        try:
            path = root / source
            if path.is_file():
                return path
        except (OSError, ValueError):
            continue
    return None


def link(path: Path, page: Path) -> str:
    """How the page, which may be moved together with the files, names a file beside it."""
    try:
        relative = os.path.relpath(os.path.realpath(path), os.path.realpath(page.parent))
    except ValueError:  # another drive
        return Path(os.path.realpath(path)).as_uri()
    return quote(os.fsencode(Path(relative).as_posix()))


def _thumbnail(path: Path) -> str | None:
    """A small WebP of an image as text in base 64; None where it cannot be read any more."""
    [source] = expand([str(path)], extensions=IMAGE_EXTENSIONS)
    try:
        loaded = load_image(source, side=THUMBNAIL)
    except InputError:
        return None
    small = loaded.image.convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BICUBIC, reducing_gap=2)
    file = io.BytesIO()
    small.save(file, "WEBP", quality=QUALITY, method=2)
    return base64.b64encode(file.getvalue()).decode()
