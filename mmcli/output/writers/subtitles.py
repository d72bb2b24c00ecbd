"""Subtitles from the segments of a transcript: readable cues, and SRT, WebVTT and TSV of them.

A cue has at most two lines of 42 columns and stays for one to seven seconds where the times allow; cues rise and
never overlap, and every word of the segments is in one of them. Nothing here needs more than the standard library.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mmcli.output.writers.phrases import (
    COLUMNS,
    LONGEST,
    SHORTEST,
    Piece,
    groups,
    joined,
    lines,
    pieces,
    visible,
    width,
)
from mmcli.types import Segment, Word

_READ = 20.0  # columns a second that are read with ease: a cue stays that long where nothing follows


@dataclass(frozen=True)
class Cue:
    """One subtitle: `start` and `end` in seconds, to the millisecond, and its one or two lines.

    `pieces` are those of each line, with the times at which they are said.
    """

    start: float
    end: float
    lines: tuple[str, ...]
    pieces: tuple[Sequence[Piece], ...] = field(default=(), compare=False, repr=False)


def cues(segments: Iterable[Segment], *, until: float | None = None) -> list[Cue]:
    """The cues of segments.

    Segments that are too long for one cue are broken, in their words' times or in proportion to the text; those that
    are over too soon stay on while nothing follows, the last of all no longer than `until`.
    """
    runs: list[list[Piece]] = []
    clock = 0.0
    for segment in segments:
        start = max(segment.start, clock)
        clock = max(segment.end, start)
        for run in groups(pieces(segment, start, clock)):
            if runs and _belongs(runs[-1], run):
                runs[-1] = [*runs[-1], Piece(run[0].text, True, run[0].start, run[0].end), *run[1:]]
            else:
                runs.append(list(run))
    return _timed(runs, until)


def _belongs(before: Sequence[Piece], run: Sequence[Piece]) -> bool:
    """Whether a run that would vanish before it is read, or the one after it, is shown with its neighbour."""
    begin, end = before[0].start, run[-1].end
    brief = run[0].start - begin < SHORTEST or (
        end - run[0].start < SHORTEST / 2 and run[0].start - before[-1].end < 0.3
    )
    text = f"{joined(before)} {joined(run)}"
    both = [*before, Piece(run[0].text, True, run[0].start, run[0].end), *run[1:]]
    return (
        brief
        and end - begin <= LONGEST
        and width(text) <= 2 * COLUMNS
        and max(width(joined(line)) for line in lines(both)) <= COLUMNS
    )


def _timed(runs: Sequence[Sequence[Piece]], until: float | None) -> list[Cue]:
    """Cues in whole milliseconds: each ends after it starts, and before the next one starts."""
    found: list[Cue] = []
    free = 0  # the first millisecond that no cue has taken
    for index, run in enumerate(runs):
        start = max(round(run[0].start * 1000), free)
        end = max(round(run[-1].end * 1000), start + 1)
        follows = runs[index + 1][0].start if index + 1 < len(runs) else until
        wanted = min(max(SHORTEST, width(joined(run)) / _READ), LONGEST)
        if follows is not None:
            end = max(end, min(start + round(wanted * 1000), int(follows * 1000)))
        end = min(end, start + round(LONGEST * 1000))
        parts = lines(run)
        found.append(Cue(start / 1000, end / 1000, tuple(map(joined, parts)), parts))
        free = end
    return found


def to_srt(cues: Iterable[Cue]) -> str:
    """SubRip. It has no way to write the arrow of its own time lines in a text, so that becomes one character."""
    blocks = []
    for number, cue in enumerate(cues, 1):
        text = "\n".join(cue.lines).replace("-->", "→")
        blocks.append(f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{text}\n")
    return "\n".join(blocks)


def to_vtt(cues: Iterable[Cue], words: bool = False) -> str:
    """WebVTT (W3C): `&`, `<` and `>` of the text are escaped. With `words` the time of its start precedes each."""
    blocks = ["WEBVTT\n"]
    for cue in cues:
        text = _timed_lines(cue) if words else "\n".join(map(_escaped, cue.lines))
        blocks.append(f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{text}\n")
    return "\n".join(blocks)


def _timed_lines(cue: Cue) -> str:
    """The lines of a cue with timestamp tags: they rise, and lie behind the cue's start and before its end."""
    shown, reached = [], round(cue.start * 1000)
    for parts in cue.pieces:
        line = ""
        for part in parts:
            start = round(part.start * 1000)
            line += " " * (part.spaced and bool(line))
            if reached < start < round(cue.end * 1000):
                line += f"<{_clock(part.start, '.')}>"
                reached = start
            line += _escaped(part.text)
        shown.append(line)
    return "\n".join(shown)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def to_tsv(segments: Iterable[Segment]) -> str:
    """A heading, then start and end in milliseconds and the text of each segment, with tabs between.

    Segments whose words have times are a row a word.
    """
    rows = ["start\tend\ttext\n"]
    timed: Iterable[Segment | Word] = (part for segment in segments for part in segment.words or (segment,))
    for part in timed:
        text = visible(" ".join(part.text.split()))
        rows.append(f"{round(part.start * 1000)}\t{round(part.end * 1000)}\t{text}\n")
    return "".join(rows)


def _clock(seconds: float, point: str) -> str:
    """3661.5 → "01:01:01,500"; hours take as many digits as they need."""
    seconds, thousandths = divmod(round(seconds * 1000), 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{thousandths:03}"
