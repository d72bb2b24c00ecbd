"""What to ask about an image and what to answer, in PaliGemma's language.

A question is a prompt and a list of answer pieces: strings, places as token ids, or boxes with their masks.
"""

import random
import typing
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from mmcli.models.nano.words import NUMBERS, named, plural
from mmcli.training.recipes.nano.annotations import ANIMALS, MOST_OBJECTS, Photo
from mmcli.training.recipes.nano.texts import clean

TINY = 0.01  # of the side: smaller objects are not asked for


class Shown(NamedTuple):
    """An object as a crop shows it; boxes are in 0..1 of the crop, flipped where it is."""

    label: str
    box: np.ndarray  # [4] of what the crop shows of it
    mask: int  # its number, or −1
    flipped: bool
    whole: np.ndarray  # [4] of all of it, which its mask covers


@dataclass
class Seen:
    """The objects of an image as a crop shows them: boxes are in 0..1 of the crop, flipped where it is."""

    photo: Photo
    flipped: bool
    whole: bool  # the crop shows most of the image, so that captions of the image hold
    objects: list[Shown]
    doubtful: set[str] = field(default_factory=set)


# Questions that no image answers, or not for so small a model: better to say so than to guess.
UNANSWERABLE = (
    "what is the name of this person?", "who is this?", "who is in the picture?", "what is his name?",
    "what is her name?", "how old is this person?", "what does the sign say?", "what is written there?",
    "what does the text say?", "read the text", "where was this taken?", "which city is this?",
    "which country is this?", "when was this taken?", "what year is it?", "what day is it?", "what time is it?",
    "who took this picture?", "how much does it cost?", "what is the price?", "what is he thinking?",
    "what happened before?", "what will happen next?", "how tall is this person?", "what is the phone number?",
    "what language is this?", "what does it smell like?", "what sound does it make?", "what is the dog's name?",
    "who won the game?", "what is the score?", "what is the capital of france?", "how far away is it?",
)  # fmt: skip
UNKNOWN = "unknown"
MISSED, MISS = 0.5, 0.07  # share of masks asked for in boxes that are off, and by which share of their sides
MOSAIC = "mosaic"  # the source of four images in one
BORROWED = 1 / 4  # weight of a sentence that was written of another image
# Words that prompts and answers use beside those of the data.
FIXED_TEXTS = (
    "caption en", "describe en", "detect", "segment", "answer en", UNKNOWN, "yes", "no", "on the left",
    "on the right", "in the middle", "what is in the picture", "what do you see", "how many are there", "is there a",
    "do you see an", "several", "wearing", "one", *NUMBERS, *UNANSWERABLE,
)  # fmt: skip


@dataclass
class Mask:
    """A piece of an answer: a box [4] and the number of its mask."""

    box: np.ndarray  # as it is asked about
    number: int
    flipped: bool
    window: np.ndarray  # [4] what the box shows of the mask, in 0..1 of it, maybe beyond
    exact: bool  # the box is the object's


Ids = Callable[[tuple[float, ...]], list[int]]


def see(photo: Photo, window: tuple[float, float, float, float], flipped: bool) -> Seen:
    """Look at the image through a window (x0, y0, x1, y1 in 0..1 of the image, maybe larger than it)."""
    x0, y0, x1, y1 = window
    seen = Seen(photo, flipped, False, [], set(photo.doubtful))
    size = np.array([x1 - x0, y1 - y0] * 2)
    tiny: set[str] = set()
    for obj in photo.objects:
        box = (np.array(obj.box) - (x0, y0, x0, y0)) / size
        cut = box.clip(0, 1)
        area = np.prod(box[2:] - box[:2])
        share = np.prod(cut[2:] - cut[:2]) / area if area > 0 else 0.0
        if share < 0.1:
            continue
        if share < 0.4:
            seen.doubtful.add(obj.label)
            continue
        if (cut[2:] - cut[:2]).min() < TINY:
            tiny.add(obj.label)
            continue
        if flipped:
            box, cut = (np.array([1 - b[2], b[1], 1 - b[0], b[3]]) for b in (box, cut))
        seen.objects.append(Shown(obj.label, cut, obj.mask, flipped, box))
    seen.doubtful |= tiny - {obj.label for obj in seen.objects}
    shown = max(0.0, min(x1, 1) - max(x0, 0)) * max(0.0, min(y1, 1) - max(y0, 0))
    seen.whole = shown > 0.6
    # Largest first: one consistent order, and what matters is written before an answer may be cut.
    seen.objects.sort(key=lambda t: -_area(t.box))
    return seen


def _area(box: np.ndarray) -> float:
    return float(np.prod(box[2:] - box[:2]))


def beside(parts: Sequence[Seen]) -> Seen:
    """Four crops as one image, in two rows of two (mosaic, arXiv:2004.10934). Nothing is asked about it as a whole."""
    first = parts[0].photo
    absent = set(first.absent).intersection(*(part.photo.absent for part in parts))
    complete = first.complete.intersection(*(part.photo.complete for part in parts))
    photo = replace(first, source=MOSAIC, absent=tuple(sorted(absent)), complete=complete)
    seen = Seen(photo, False, False, [], set().union(*(part.doubtful for part in parts)))
    for number, part in enumerate(parts):
        corner = np.array([number % 2, number // 2] * 2)
        for obj in part.objects:
            box = (obj.box + corner) / 2
            if (box[2:] - box[:2]).min() < TINY:
                seen.doubtful.add(obj.label)
            else:
                seen.objects.append(obj._replace(box=box, whole=(obj.whole + corner) / 2))
    count = Counter(obj.label for obj in seen.objects)
    seen.doubtful |= {label for label, n in count.items() if n > MOST_OBJECTS}
    # Classes that one of the images says nothing of.
    for part in parts:
        sure = part.photo.complete | set(part.photo.absent) | {obj.label for obj in part.objects}
        seen.doubtful |= set(count) - sure
    seen.objects.sort(key=lambda t: -_area(t.box))
    return seen


def objects_of(seen: Seen, label: str) -> list[Shown]:
    return [obj for obj in seen.objects if obj.label == label][:MOST_OBJECTS]


def detect(seen: Seen, labels: list[str], loc: Ids) -> tuple[str, list]:
    """`detect a ; b` → boxes of each in turn, in the order asked."""
    answer: list = []
    for label in labels:
        for obj in objects_of(seen, label):
            answer += ([" ; "] if answer else []) + [loc(tuple(obj.box)), " " + label]
    return "detect " + " ; ".join(labels), _joined(answer)


def segment(seen: Seen, label: str, rng: random.Random) -> tuple[str, list] | None:
    """`segment a` → boxes with masks; None where a large object of the label has no mask."""
    found = objects_of(seen, label)
    if found and found[0].mask < 0:
        return None
    answer: list = []
    for obj in found[: rng.choice((1, 2, 4))]:
        if obj.mask < 0:
            if _area(obj.box) > 0.3 * _area(found[0].box):
                return None
            continue
        answer += ([" ; "] if answer else []) + [_mask(obj, rng), " " + label]
    return f"segment {label}", _joined(answer)


def _mask(obj: Shown, rng: random.Random) -> Mask:
    """The mask of an object in its box, or in one that is as wrong as found boxes are."""
    box, exact = obj.box, rng.random() >= MISSED
    if not exact:
        size = np.tile(box[2:] - box[:2], 2)
        shifted = (box + size * [rng.gauss(0, MISS) for _ in range(4)]).clip(0, 1)
        exact = bool((shifted[2:] - shifted[:2] < 0.5 * size[:2]).any())
        box = box if exact else shifted
    size = np.tile(obj.whole[2:] - obj.whole[:2], 2)
    window = (box - np.tile(obj.whole[:2], 2)) / size
    return Mask(box, obj.mask, obj.flipped, window, exact)


def _joined(answer: list) -> list:
    """Labels and separators that meet become one string, so that they are tokenised as they are decoded."""
    joined: list = []
    for piece in answer:
        if isinstance(piece, str) and joined and isinstance(joined[-1], str):
            joined[-1] += piece.rstrip() if piece == " ; " else piece
        else:
            joined.append(piece.rstrip() if piece == " ; " else piece)
    return joined


def caption(seen: Seen, rng: random.Random) -> tuple[str, float] | None:
    """A sentence and its weight: one that a person wrote of this image, else one borrowed from an image alike."""
    photo = seen.photo
    if not seen.whole or not (photo.captions or photo.borrowed):
        return None
    if photo.captions:
        text, weight = clean(rng.choice(photo.captions)), 1.0
    else:
        text, weight = clean(rng.choice(photo.borrowed)[0]), BORROWED
    if seen.flipped and (" left" in text or " right" in text):
        return None
    return text, weight


def plain_words(seen: Seen) -> str | None:
    """`a cat and two dogs`: kinds by the area they take, at most three."""
    photo = seen.photo
    if photo.source == "ccp":
        worn = [w for w in photo.labels if w not in ("person", "hair", "belt", "accessories")][:4]
        return "a person wearing " + listed([named(w, 1) for w in worn]) if seen.whole and worn else None
    area: typing.Any = Counter()  # of fractions, which the type of a Counter does not foresee
    count: Counter[str] = Counter()
    for obj in seen.objects:
        area[obj.label] += _area(obj.box)
        count[obj.label] += 1
    kinds = [label for label, a in area.most_common(3) if a > 0.04 or label == area.most_common(1)[0][0]]
    words = [named(label, count[label]) for label in kinds]
    if photo.source in ("imagenet", "flowers", "grocery", "clothing") and photo.labels:
        if not seen.whole:
            return None
        first = photo.labels[0]
        words = [named(first, 1)] + [w for w, k in zip(words, kinds, strict=True) if k == "person" and k != first]
    return listed(words) if words else None


def listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def answer(seen: Seen, rng: random.Random, absent: list[str]) -> tuple[str, str] | None:
    """One question of many kinds with a short answer, or None where nothing is sure enough to ask."""
    count: Counter[str] = Counter(obj.label for obj in seen.objects)
    sure = [label for label in count if label not in seen.doubtful]
    if seen.photo.questions and seen.whole and rng.random() < 0.7:
        question, answer = rng.choice(seen.photo.questions)
        sided = any(word in (question + answer).lower() for word in ("left", "right"))
        return None if seen.flipped and sided else (question.lower().strip(), answer.lower().strip())
    kinds = ["yes", "no", "count", "what", "animal", "where", "main", "none", "unknown"]
    kind = rng.choice(kinds)
    if kind == "unknown":
        return (rng.choice(UNANSWERABLE), UNKNOWN) if seen.photo.source != "layout" else None
    if kind == "yes" and sure:
        label = rng.choice(sure)
        return rng.choice(_presence(label)), "yes"
    if kind == "no" and absent:
        return rng.choice(_presence(rng.choice(absent))), "no"
    if kind == "none" and absent:
        return f"how many {plural(rng.choice(absent))} are there?", "0"
    if kind == "count" and sure:
        label = rng.choice(sure)
        if count[label] <= MOST_OBJECTS:
            return f"how many {plural(label)} are there?", str(count[label])
    if kind == "what" and (words := plain_words(seen)):
        return rng.choice(("what is in the picture?", "what is this?", "what do you see?")), words
    if kind == "main" and seen.objects:
        return "what is the main thing in the picture?", seen.objects[0].label
    if kind == "animal" and seen.photo.source != "kangaroo":
        for label in (obj.label for obj in seen.objects):
            if label in ANIMALS or label == "raccoon":
                return rng.choice(("what animal is this?", "which animal is in the picture?")), label
    if kind == "where":
        single = [(t.label, t.box) for t in seen.objects if count[t.label] == 1 and t.label in sure]
        if single:
            label, box = rng.choice(single)
            middle = (box[0] + box[2]) / 2
            side = "on the left" if middle < 0.4 else "on the right" if middle > 0.6 else "in the middle"
            return f"where is the {label}?", side
    return None


def _presence(label: str) -> tuple[str, ...]:
    noun = named(label, 1)
    return (f"is there {noun}?", f"is there {noun} in the picture?", f"do you see {noun}?")
