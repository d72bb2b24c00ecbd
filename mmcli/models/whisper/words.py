"""From tokens with times to words with times (openai/whisper `timing.py` and `tokenizer.py`)."""

import string
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from mmcli.models.whisper.segments import Segment, Stretch, Word

# Languages written without spaces: every character is a word.
UNSPACED = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
OPENING = frozenset("\"'“¿([{-")  # goes with the next word
CLOSING = frozenset("\"'.。,，!！?？:：”)]}、")  # goes with the word before
ENDS = frozenset(".。!！?？")
LONGEST_MEDIAN = 0.7  # seconds
DAMAGED = "\ufffd"  # what part of a character decodes to

Decode = Callable[[Sequence[int]], str]


def split_words(ids: Sequence[int], decode: Decode, language: str) -> list[list[int]]:
    """Group tokens into words; punctuation that stands alone is a group of its own."""
    characters = split_characters(ids, decode)
    if language in UNSPACED:
        return characters
    words: list[list[int]] = []
    for part in characters:
        text = decode(part)
        if not words or text.startswith(" ") or text.strip() in string.punctuation:
            words.append(list(part))
        else:
            words[-1] += part
    return words


def split_characters(ids: Sequence[int], decode: Decode) -> list[list[int]]:
    """The smallest groups of tokens that decode to whole characters."""
    whole = decode(ids)
    groups: list[list[int]] = []
    current: list[int] = []
    place = 0
    for id in ids:
        current.append(id)
        text = decode(current)
        # A damaged character may be what was really written.
        if DAMAGED not in text or whole[place + text.index(DAMAGED) :][:1] == DAMAGED:
            groups.append(current)
            place += len(text)
            current = []
    return [*groups, current] if current else groups


def words_of(
    ids: Sequence[int], times: np.ndarray, probabilities: np.ndarray, decode: Decode, language: str
) -> list[tuple[Word, int]]:
    """Words with punctuation joined to them, and how many tokens each has; `times` [T + 1], `probabilities` [T]."""
    found: list[tuple[Word, int]] = []
    place = 0
    for group in split_words(ids, decode, language):
        end = place + len(group)
        probability = float(np.mean(probabilities[place:end]))
        found.append((Word(float(times[place]), float(times[end]), decode(group), probability), len(group)))
        place = end
    return join_punctuation(found)


def join_punctuation(words: list[tuple[Word, int]]) -> list[tuple[Word, int]]:
    """Opening marks join the next word and closing ones the word before; the word keeps its own times."""
    joined: list[tuple[Word, int]] = []
    for word, count in words:
        mark = word.text.strip()
        before = joined[-1] if joined else None
        if before and before[0].text.startswith(" ") and before[0].text.strip() in OPENING:
            joined[-1] = (replace(word, text=before[0].text + word.text.lstrip()), before[1] + count)
        elif before and mark in CLOSING and not word.text.startswith(" ") and not before[0].text.endswith(" "):
            joined[-1] = (replace(before[0], text=before[0].text + word.text), before[1] + count)
        else:
            joined.append((word, count))
    return joined


def with_words(
    stretches: list[Stretch], words: list[tuple[Word, int]], decode: Decode, seconds: float
) -> tuple[Segment, ...]:
    """Segments with their words and the times of these; a word belongs where its first token does.

    The path gives the silence around speech to the words beside it, so a word at the edge of a segment or sentence
    lasts at most twice the median.
    """
    lengths = np.array([word.end - word.start for word, _ in words if word.end > word.start])
    longest = 2 * min(LONGEST_MEDIAN, float(np.median(lengths))) if len(lengths) else 0.0
    segments = []
    taken, limit, place = 0, 0, 0
    for stretch in stretches:
        limit += len(stretch.ids)
        own: list[Word] = []
        while place < len(words) and taken < limit:
            own.append(words[place][0])
            taken += words[place][1]
            place += 1
        own = [replace(word, start=min(word.start, seconds), end=min(word.end, seconds)) for word in own]
        own = trim(own, longest)
        start, end = (own[0].start, own[-1].end) if own else (stretch.start, stretch.end)
        segments.append(Segment(start, end, decode(stretch.ids), tuple(own)))
    return tuple(segments)


def trim(words: list[Word], longest: float) -> list[Word]:
    """Cut words that are too long where a pause is likely: at the edges of a segment and of sentences in it."""
    found = list(words)
    for place, word in enumerate(words):
        if word.end - word.start <= longest:
            continue
        if place == 0 or words[place - 1].text[-1:] in ENDS:
            found[place] = replace(word, start=word.end - longest)
        elif place == len(words) - 1 or word.text[-1:] in ENDS:
            found[place] = replace(word, end=word.start + longest)
    return found
