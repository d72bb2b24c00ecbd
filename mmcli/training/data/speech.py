"""Speech: rows that name a recording and what is said in it."""

from collections.abc import Iterator
from pathlib import Path

from mmcli.example import Example, Exchange
from mmcli.hub.fields import shown
from mmcli.training.data.place import Place
from mmcli.training.data.rows import Row, Unusable
from mmcli.training.data.values import text

NAME = "speech"
# Of this and other tools: NeMo's manifests, Common Voice's tables.
FILES = ("audio", "file", "audio_filepath", "path", "wav")
TEXTS = ("text", "sentence", "transcript", "transcription")


def fits(row: Row) -> bool:
    """Whether a row is of this format."""
    return any(key in row for key in FILES) and any(key in row for key in TEXTS)


def examples(row: Row, where: str, file: Path, place: Place) -> Iterator[Example]:
    """The example of a row. A row about a part of a recording is refused: recordings are read whole."""
    key = next(key for key in FILES if key in row)
    if row.get("offset") not in (None, 0, 0.0, "", "0", "0.0"):
        raise Unusable(f"its offset is {shown(row['offset'])}, and only whole recordings are read: cut it out first")
    path = place.find(row[key], file.parent, file.parent / "clips", what="recording")
    said = next((row[key] for key in TEXTS if row.get(key) is not None), None)
    language = row.get("language") or row.get("locale")  # the latter in Common Voice
    yield Example(
        "transcribe",
        where,
        audio=(path,),
        exchanges=(Exchange(None, text(said, "text").strip()),),
        language=language if isinstance(language, str) else None,
    )
