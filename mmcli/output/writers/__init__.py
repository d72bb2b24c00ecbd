"""The forms in which a record can be written, one `Writer` each; what can be chosen anywhere comes from this table."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmcli.output.kinds import ANSWER, AUDIO

if TYPE_CHECKING:
    from mmcli.output.schema import Record
    from mmcli.output.writers.subtitles import Cue


@dataclass(frozen=True)
class Writer:
    """One form: `write(record, several)` gives the text of a record, `several` where those of others stand beside it.

    An input that failed has a record in the forms that hold whole records; in the others it has no text.
    """

    name: str
    suffix: str  # of files in this form
    write: "Callable[[Record, bool], str]"
    of: frozenset[str] = ANSWER  # kinds of records that have this form
    joins: bool = False  # whether a file may hold many records
    whole: bool = False  # whether it holds whole records, failed ones too
    timed: bool = False  # whether it tells times
    video: "Callable[[Sequence[Record], float], str] | None" = None  # of a whole video that ends at so many seconds
    head: "Callable[[str], str] | None" = None  # the first line of a file of records of a kind


def _text(record: "Record", several: bool) -> str:
    from mmcli.output.writers.text import to_text

    return to_text(record, several)


def _jsonl(record: "Record", several: bool) -> str:
    from mmcli.output.record import to_json_line

    return to_json_line(record)


def _json(record: "Record", several: bool) -> str:
    from mmcli.output.json_text import to_json
    from mmcli.output.record import to_dict

    return to_json(to_dict(record), indent=2) + "\n"


def _csv(record: "Record", several: bool) -> str:
    from mmcli.output.writers.table import to_csv

    return to_csv(record)


def _csv_head(kind: str) -> str:
    from mmcli.output.writers.table import head

    return head(kind)


def _srt(record: "Record", several: bool) -> str:
    from mmcli.output.writers.subtitles import to_srt

    return to_srt(_cues(record))


def _vtt(record: "Record", several: bool) -> str:
    from mmcli.output.writers.subtitles import to_vtt

    return to_vtt(_cues(record), record.timestamps == "word")


def _tsv(record: "Record", several: bool) -> str:
    from mmcli.output.writers.subtitles import to_tsv

    return to_tsv(record.segments)


def _cues(record: "Record") -> "list[Cue]":
    from mmcli.output.writers.subtitles import cues

    return cues(record.segments, until=record.seconds)


def _captions_srt(records: "Sequence[Record]", end: float) -> str:
    from mmcli.output.writers.captions import caption_cues
    from mmcli.output.writers.subtitles import to_srt

    return to_srt(caption_cues(records, end))


def _captions_vtt(records: "Sequence[Record]", end: float) -> str:
    from mmcli.output.writers.captions import caption_cues
    from mmcli.output.writers.subtitles import to_vtt

    return to_vtt(caption_cues(records, end))


_TABLE = (
    Writer("text", ".txt", _text, joins=True),
    Writer("json", ".json", _json, whole=True),
    Writer("jsonl", ".jsonl", _jsonl, joins=True, whole=True),
    Writer("csv", ".csv", _csv, joins=True, whole=True, head=_csv_head),
    Writer("srt", ".srt", _srt, timed=True, video=_captions_srt),
    Writer("vtt", ".vtt", _vtt, timed=True, video=_captions_vtt),
    Writer("tsv", ".tsv", _tsv, AUDIO, timed=True),
)
WRITERS = {writer.name: writer for writer in _TABLE}


def writers_for(kind: str) -> list[Writer]:
    """The forms that records of a kind ("image", "audio") have, in the order of the table."""
    return [writer for writer in _TABLE if kind in writer.of]


def writer_of(path: str | None, kind: str) -> Writer | None:
    """The form that the name of a file asks for; None for a folder and for a name that asks for none."""
    if path is None or path.endswith(("/", os.sep)) or Path(path).is_dir():
        return None
    suffix = Path(path).suffix.lower()
    return next((writer for writer in _TABLE if kind in writer.of and writer.suffix == suffix), None)
