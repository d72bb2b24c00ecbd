"""From tokens with times to words with times (openai/whisper `timing.py` and `tokenizer.py`)."""

import string
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from mmcli.models.whisper.segments import TokenSegment
from mmcli.types import Segment, Word

# Languages written without spaces: every character is a word.
UNSPACED = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
OPENING = frozenset("\"'“¿([{-")  # goes with the next word
CLOSING = frozenset("\"'.。,，!！?？:：”)]}、")  # goes with the word before
ENDS = frozenset(".。!！?？")
LONGEST_MEDIAN = 0.7  # seconds
DAMAGED = "\ufffd"  # what part of a character decodes to

Decode = Callable[[Sequence[int]], str]


def split_words(ids: Sequence[int], decode: Decode, language: str | None) -> list[list[int]]:
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
    ids: Sequence[int], times: np.ndarray, probabilities: np.ndarray, decode: Decode, language: str | None
) -> list[Word]:
    """Words with punctuation joined to them; `times` [T + 1], `probabilities` [T]."""
    found: list[Word] = []
    place = 0
    for group in split_words(ids, decode, language):
        end = place + len(group)
        probability = float(np.mean(probabilities[place:end]))
        found.append(Word(float(times[place]), float(times[end]), decode(group), probability))
        place = end
    return join_punctuation(found)


def join_punctuation(words: list[Word]) -> list[Word]:
    """Opening marks join the next word and closing ones the word before; the word keeps its own times."""
    joined: list[Word] = []
    for word in words:
        before = joined[-1] if joined else None
        if before and before.text.startswith(" ") and before.text.strip() in OPENING:
            joined[-1] = replace(word, text=before.text + word.text)
        elif before and word.text in CLOSING and not before.text.endswith(" "):
            joined[-1] = replace(before, text=before.text + word.text)
        else:
            joined.append(word)
    return joined


def with_words(
    parts: list[TokenSegment], times: np.ndarray, probabilities: np.ndarray, decode: Decode, language: str | None
) -> tuple[Segment, ...]:
    """Segments with their words and the times of these; `times` [T + 1] and `probabilities` [T] of all tokens in order.

    The path gives the silence around speech to the words beside it, so a word at the edge of a segment or sentence
    lasts at most twice the median.
    """
    words: list[list[Word]] = []
    place = 0
    for part in parts:
        end = place + len(part.ids)
        words.append(words_of(part.ids, times[place : end + 1], probabilities[place:end], decode, language))
        place = end
    lengths = [word.end - word.start for own in words for word in own if word.end > word.start]
    longest = 2 * min(LONGEST_MEDIAN, float(np.median(lengths))) if lengths else 0.0
    segments = []
    for part, own in zip(parts, words, strict=True):
        own = trim(own, longest)
        segments.append(Segment(own[0].start, own[-1].end, decode(part.ids), tuple(own)))
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
