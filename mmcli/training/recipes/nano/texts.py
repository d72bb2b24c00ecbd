"""Sentences as they are taught: plain lower case, of words that the tokenizer holds whole."""

import re
from collections import Counter
from collections.abc import Iterable

from mmcli.training.recipes.nano.annotations import COCO_CLASSES, Photo

SELDOM = 4  # a word that comes less often is not taught to be written
OFTEN = 40  # beyond this a word's count does not matter for the choice of sub-words
WORD = re.compile(r"[a-z]+|[0-9]+")


def clean(sentence: str) -> str:
    """`A man in a T-shirt .` → `a man in a shirt`."""
    text = sentence.lower().replace("’", "'").strip().rstrip(".").strip()
    text = re.sub(r"\bt[- ]?shirt(s?)\b", r"shirt\1", text)
    text = re.sub(r"[^a-z0-9', ]", " ", text)
    return re.sub(r"\s+,", ",", re.sub(r"\s+", " ", text)).strip(" ,")


def words_of(text: str) -> list[str]:
    return WORD.findall(text.lower())


def sentences(photos: Iterable[Photo]) -> list[str]:
    """Every sentence of the images, people's and borrowed ones, cleaned."""
    return [clean(s) for p in photos for s in (*p.captions, *(text for text, _ in p.borrowed))]


def counts(photos: list[Photo], more: Iterable[str] = ()) -> Counter[str]:
    """How often each word stands in captions, labels, questions and `more`; those that come seldom are left out."""
    words: Counter[str] = Counter()
    for text in sentences(photos):
        words.update(words_of(text))
    for photo in photos:
        for text in (*photo.labels, *(t.label for t in photo.objects), *(x for pair in photo.questions for x in pair)):
            words.update(words_of(text))
    kept = Counter({word: n for word, n in words.items() if n >= SELDOM})
    for text in (*more, *COCO_CLASSES):
        for word in words_of(text):
            kept[word] = max(kept[word], OFTEN)
    return kept


def starts(photos: list[Photo], more: Iterable[str] = ()) -> Counter[str]:
    """How often each word begins a sentence, a label or an answer; those that seldom do are left out."""
    words: Counter[str] = Counter()
    begun = [*sentences(photos), *(answer for p in photos for _, answer in p.questions)]
    begun += [label for p in photos for label in p.labels]
    for text in begun:
        words.update(words_of(text)[:1])
    kept = Counter({word: n for word, n in words.items() if n >= 2 * SELDOM})
    for text in (*more, *COCO_CLASSES):
        for word in words_of(text)[:1]:
            kept[word] = max(kept[word], OFTEN)
    for digit in range(10):
        kept[str(digit)] = OFTEN
    return kept
