"""From the tokens of one window to segments with times."""

from dataclasses import dataclass
from itertools import pairwise

from mmcli.models.whisper.processor import WhisperProcessor

GAP = 3.0  # seconds of speech without text; pauses are shorter where windows are cut at pauses
SLOWEST = 1.0  # seconds a token: nobody speaks as slowly for long


@dataclass(frozen=True)
class TokenSegment:
    """A segment as its tokens."""

    start: float
    end: float
    ids: tuple[int, ...]


def token_segments(processor: WhisperProcessor, ids: list[int], seconds: float) -> list[TokenSegment]:
    """Split what was written for a window of `seconds` at its time tokens.

    A segment whose start was not written begins where the last one ended, and one whose end was not written lasts to
    the end of the window. Times lie inside the window and rise.
    """
    found: list[TokenSegment] = []
    start: float | None = None
    text: list[int] = []
    reached = 0.0

    def close(end: float) -> None:
        nonlocal start, text, reached
        begin = reached if start is None else max(start, reached)
        reached = max(begin, end)
        if text:
            found.append(TokenSegment(begin, reached, tuple(text)))
        start, text = None, []

    for id in ids:
        if processor.is_time(id):
            time = min(processor.seconds(id), seconds)
            if text:
                close(time)
            else:
                start = time
        elif processor.is_text(id):
            text.append(id)
    close(seconds)
    return found


def transcribed_until(processor: WhisperProcessor, ids: list[int], seconds: float) -> float:
    """How far into the window the text goes, as openai/whisper's `transcribe.py` reads it.

    An answer that ends with the start of a segment without text says that more follows from there.
    """
    ends_with_start = len(ids) >= 2 and processor.is_time(ids[-1]) and processor.is_time(ids[-2])
    return min(processor.seconds(ids[-1]), seconds) if ends_with_start else seconds


def before_gap(found: list[TokenSegment], reached: float) -> tuple[list[TokenSegment], float]:
    """The segments up to the first gap, and where it begins; all of them and `reached`, where there is none.

    A small Whisper may leap over many seconds, often where the speaker changes, or end long before the audio does. In
    a window that is full of speech that is no pause: what lies behind is better transcribed again.
    """
    for number, (one, after) in enumerate(pairwise(found)):
        if after.start - one.end > GAP:
            return found[: number + 1], one.end
    if found and reached - found[-1].end > GAP:
        return found, found[-1].end
    return found, reached


def first_too_slow(found: list[TokenSegment]) -> int | None:
    """The first segment that lasts longer than its text can take, or None: there may be a gap in it."""
    return next((n for n, one in enumerate(found) if one.end - one.start > GAP + SLOWEST * len(one.ids)), None)
