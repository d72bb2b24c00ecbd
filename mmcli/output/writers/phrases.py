"""Text cut for subtitles: the pieces between which it may break, when each is said, and where it breaks best."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate

from mmcli.types import Segment, Word

COLUMNS = 42  # of a line; a Chinese or Japanese character takes two
LONGEST = 7.0  # seconds that a subtitle stays at most
SHORTEST = 1.0

_SENTENCE_ENDS = ".!?…。！？।؟"
_CLAUSE_ENDS = ",;:–—、，；：،"
_CLOSING = (
    "、。，．！？；：）」』】〉》〕｝’”…ー々ゝゞっッゃャゅュょョぁァぃィぅゥぇェぉォ)]}!?.,;:%»"  # never begin a line
)
_OPENING = "（「『【〈《〔｛‘“([{«"  # never end one


@dataclass(frozen=True)
class Piece:
    """What never breaks: a word, or a character of a script without spaces; `start` and `end` in seconds."""

    text: str
    spaced: bool  # whether a space stands before it
    start: float
    end: float


def pieces(segment: Segment, start: float, end: float) -> list[Piece]:
    """The pieces of a segment's text, within `start` to `end` seconds.

    Their times are those of the segment's words where it has them, and else in proportion to the text: good enough to
    change a subtitle by, and never given out as the times of words.
    """
    text = segment.text
    spans = _spans(text)
    anchors = _anchors(text, segment.words or ())
    whole = sum(width(text[begin:stop]) for begin, stop in spans) or 1
    found, spoken, clock = [], 0, start
    for index, (begin, stop) in enumerate(spans):
        first = start + (end - start) * spoken / whole
        spoken += width(text[begin:stop])
        last = start + (end - start) * spoken / whole
        first, last = _time_at(anchors, begin, first), _time_at(anchors, stop, last, closing=True)
        first = min(max(first, clock), end)
        clock = min(max(last, first), end)
        spaced = index > 0 and text[begin - 1].isspace()
        found.append(Piece(visible(text[begin:stop]), spaced, first, clock))
    return found


def visible(text: str) -> str:
    """`text` without characters that would move the cursor or cannot be written in UTF-8."""
    return "".join("\ufffd" if unicodedata.category(char) in ("Cc", "Cs") else char for char in text)


def width(text: str) -> int:
    """Columns that `text` takes."""
    return len(text) if text.isascii() else sum(_columns(char) for char in text)


@cache
def _columns(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1


def joined(parts: Sequence[Piece]) -> str:
    """The pieces as one text."""
    return "".join(" " * (part.spaced and index > 0) + part.text for index, part in enumerate(parts))


def lines(parts: Sequence[Piece]) -> tuple[Sequence[Piece], ...]:
    """The pieces on one line where they fit, else on two of about the same length, broken where it reads well."""
    if width(joined(parts)) <= COLUMNS:
        return (parts,)
    best, cost = 1, float("inf")
    for at in range(1, len(parts)):
        first, second = width(joined(parts[:at])), width(joined(parts[at:]))
        over = max(first - COLUMNS, 0) + max(second - COLUMNS, 0)
        price = 1000 * over + abs(first - second) + 2 * (first > second) + 40 * _price_of_break(parts[at - 1])
        if price < cost:
            best, cost = at, price
    return parts[:best], parts[best:]


def groups(parts: Sequence[Piece]) -> list[Sequence[Piece]]:
    """The pieces in runs that fit on two lines and last at most seven seconds where their times allow, in order.

    As few as that takes, broken at the ends of sentences, at commas and pauses rather than elsewhere, and of about
    the same length: the cheapest of all ways to break, found from the end.
    """
    count = len(parts)
    widths = [width(part.text) for part in parts]
    sums = [0, *accumulate(widths)]
    line_ends = [_line_end(parts, widths, begin) for begin in range(count)]
    cheapest, next_break = [0.0] * (count + 1), [count] * (count + 1)
    for begin in range(count - 1, -1, -1):
        cheapest[begin] = float("inf")
        stop = line_ends[begin]
        stop = line_ends[stop] if stop < count else count
        for end in range(begin + 1, stop + 1):
            price = _price(parts, begin, end, sums[end] - sums[begin]) + cheapest[end]
            if price < cheapest[begin]:
                cheapest[begin], next_break[begin] = price, end
    found, begin = [], 0
    while begin < count:
        found.append(parts[begin : next_break[begin]])
        begin = next_break[begin]
    return found


def _line_end(parts: Sequence[Piece], widths: Sequence[int], begin: int) -> int:
    """Where a line that begins with piece `begin` must end at the latest."""
    total = widths[begin]
    for at in range(begin + 1, len(parts)):
        total += widths[at] + parts[at].spaced
        if total > COLUMNS:
            return at
    return len(parts)


def _price(parts: Sequence[Piece], begin: int, end: int, columns: int) -> float:
    """Of showing the pieces `begin` to `end` as one and breaking after them. One more break costs about 1."""
    seconds = parts[end - 1].end - parts[begin].start
    price = 1 + 0.5 * (1 - columns / (2 * COLUMNS)) ** 2
    price += 50 * max(seconds - LONGEST - 0.5, 0)  # half a second may be cut off its end
    price += 3 * max(SHORTEST - seconds, 0)
    if end < len(parts):
        pause = min(parts[end].start - parts[end - 1].end, 1.0)
        price += 2 * _price_of_break(parts[end - 1]) * (1 - pause) - pause
    return price


def _price_of_break(part: Piece) -> float:
    """How bad it is to break after a piece, 0 to 1."""
    last = part.text.rstrip("\"'”’»)]」』）")[-1:]
    return 0.0 if last and last in _SENTENCE_ENDS else 0.3 if last and last in _CLAUSE_ENDS else 1.0


# -- pieces ------------------------------------------------------------------------------------------------------


def _spans(text: str) -> list[tuple[int, int]]:
    """From and to of every piece of `text`."""
    spans: list[tuple[int, int]] = []
    begin = 0
    for at in range(len(text) + 1):
        if at == len(text) or text[at].isspace():
            if begin < at:
                spans.append((begin, at))
            begin = at + 1
        elif begin < at and (_breaks(text[at - 1], text[at]) or _full(text, begin, at)):
            spans.append((begin, at))
            begin = at
    return spans


def _breaks(one: str, other: str) -> bool:
    """Whether a line may end between two characters that no space parts: in scripts that write none."""
    return (
        (_unspaced(one) or _unspaced(other)) and other not in _CLOSING and one not in _OPENING and _columns(other) > 0
    )


def _unspaced(char: str) -> bool:
    """Han, kana and the marks between them."""
    code = ord(char)
    return code >= 0x3000 and (
        0x3000 <= code <= 0x30FF
        or 0x3400 <= code <= 0x9FFF
        or 0xF900 <= code <= 0xFAFF
        or 0xFF00 <= code <= 0xFF9F
        or 0x20000 <= code <= 0x3FFFF
    )


def _full(text: str, begin: int, at: int) -> bool:
    """Whether a piece that would go on with the character at `at` takes more than a line: addresses, Thai."""
    return width(text[begin : at + 1]) > COLUMNS and _columns(text[at]) > 0


# -- times -------------------------------------------------------------------------------------------------------


def _anchors(text: str, words: Sequence[Word]) -> list[tuple[int, int, float, float]]:
    """(from, to, start, end) of the words that are found in `text`, one after the other."""
    found, at = [], 0
    for word in words:
        spoken = word.text.strip()
        begin = text.find(spoken, at) if spoken else -1
        if begin >= 0:
            at = begin + len(spoken)
            found.append((begin, at, word.start, word.end))
    return found


def _time_at(
    anchors: Sequence[tuple[int, int, float, float]], at: int, otherwise: float, closing: bool = False
) -> float:
    """When the character at `at` is said (`closing`: when the one before it has been), as far as words tell."""
    for begin, stop, start, end in anchors:
        if begin + closing <= at < stop + closing:
            return start + (end - start) * (at - begin) / (stop - begin)
    return otherwise
