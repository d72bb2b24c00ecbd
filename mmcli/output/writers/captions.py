"""Subtitles from the captions of a video's frames: each stays until the next frame that was looked at."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from mmcli.output.writers.phrases import COLUMNS, Piece, groups, joined, lines, pieces, width
from mmcli.output.writers.subtitles import Cue
from mmcli.types import Segment

if TYPE_CHECKING:
    from mmcli.output.schema import Record


def caption_cues(records: "Sequence[Record]", until: float) -> list[Cue]:
    """The cues of the records of a video's frames, in the order of time; the last ends at `until` seconds.

    A caption that does not fit on two lines is broken into several cues, in proportion to the text. Frames without a
    text have none.
    """
    starts = [record.time or 0.0 for record in records]
    ends = [*starts[1:], max(until, starts[-1] + 0.001)] if starts else []
    segments = (
        Segment(start, end, " ".join(one.text.split())) for one, start, end in zip(records, starts, ends, strict=True)
    )
    return [cue for segment in segments for cue in _cues(segment)]


def _cues(segment: Segment) -> Iterable[Cue]:
    parts = pieces(segment, segment.start, segment.end)
    if not parts:
        return
    runs: list[Sequence[Piece]] = [parts]
    if any(width(joined(line)) > COLUMNS for line in lines(parts)):
        runs = groups(parts)
    starts = [segment.start, *(run[0].start for run in runs[1:]), segment.end]
    for run, start, end in zip(runs, starts, starts[1:], strict=False):
        yield Cue(round(start, 3), round(end, 3), tuple(map(joined, lines(run))))
