"""A record as text for people and for simple tools: lines, with tabs where there are columns."""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmcli.output.schema import Object, Record
    from mmcli.types import Segment

# Control characters would move the cursor or recolour the terminal; surrogates outside U+DC80…DCFF stand for nothing.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udc7f\udd00-\udfff]")


def to_text(record: "Record", several: bool = False) -> str:
    """The lines of a record, each with its newline; "" where there is nothing to say.

    Detection and segmentation, and reading where it tells places: one line an object, `label x0 y0 x1 y1 score` with
    tabs between; the score is the probability where the model gives one, else the mean log-probability. Transcripts:
    one line a segment. Other tasks: the answer. With `several` inputs the source's name comes first, and an answer is
    kept on one line; the name of a frame of a video ends with its time (`film.mp4#t=12.5`, as players take it). A
    failed record has no text: its error belongs to stderr.

    File names that are not UTF-8 keep their escapes (U+DC80…DCFF); write with errors="surrogateescape".
    """
    if record.kind == "failed":
        return ""
    several = several or record.time is not None
    name = _one_line(named(record)) if several else ""
    if record.task in ("detect", "segment") or (record.task == "read" and record.objects):
        return "".join(("\t".join([name] * several + _columns(found))) + "\n" for found in record.objects)
    if record.kind == "audio":
        return segment_lines(str(record.source), record.segments, several)
    if several:
        return f"{name}: {_one_line(record.text)}\n"
    text = readable(record.text).strip("\n")
    return text + "\n" if text or record.task != "read" else ""  # where nothing is written there is nothing to read


def named(record: "Record") -> str:
    """The source of a record; of a frame with its time in seconds, as a media fragment (W3C)."""
    name = str(record.source or "")
    return name if record.time is None else f"{name}#t={f'{record.time:.3f}'.rstrip('0').rstrip('.')}"


def to_counts(record: "Record", asked: "Iterable[str]", several: bool = False) -> str:
    """How many objects there are of each label, one a line: those `asked` for, found or not, and then others."""
    counts = dict.fromkeys(asked, 0)
    for found in record.objects:
        counts[found.label] = counts.get(found.label, 0) + 1
    lead = f"{_one_line(named(record))}\t" if several or record.time is not None else ""
    return "".join(f"{lead}{_one_line(label)}\t{count}\n" for label, count in counts.items())


def readable(text: str) -> str:
    """Text of any number of lines, fit for a terminal."""
    return _CONTROL.sub("\ufffd", text.replace("\r\n", "\n"))


def segment_lines(name: str, segments: "Iterable[Segment]", several: bool = False) -> str:
    """Segments of a transcript, a line each; with `several` recordings each line begins with the recording's name."""
    lead = f"{_one_line(name)}: " if several else ""
    return "".join(f"{lead}{_one_line(segment.text)}\n" for segment in segments)


def clock(seconds: float) -> str:
    """75.4 → "1:15"; hours only where there are some."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _columns(found: "Object") -> list[str]:
    edges = [f"{edge:.2f}".rstrip("0").rstrip(".") for edge in found.box]
    score = found.score if found.probability is None else found.probability
    return [_one_line(found.label), *edges, "" if score is None else f"{score:.4f}"]


def _one_line(text: str) -> str:
    return _CONTROL.sub("\ufffd", re.sub(r"[\t\r\n]+", " ", text.strip()))
