"""What is measured of sentences on COCO's check photographs: objects that are not there, likeness, questions."""

import random
from collections import Counter
from collections.abc import Callable, Sequence

from mmcli.training.metrics.cider import cider
from mmcli.training.recipes.nano.annotations import Photo
from mmcli.training.recipes.nano.hallucination import chair, named_classes

# Asks each image its prompt and gives the answers in order.
Ask = Callable[[Sequence[tuple[Photo, str]], int], list[str]]
LONGEST, ANSWER = 48, 12  # tokens
CAPTION = "caption en"


def measure_hallucination(ask: Ask, photos: Sequence[Photo]) -> dict:
    """Captions of photographs with every box: which objects they name."""
    captions = ask([(photo, CAPTION) for photo in photos], LONGEST)
    there = [{obj.label for obj in photo.objects} for photo in photos]
    wrong = Counter(label for text, own in zip(captions, there, strict=True) for label in named_classes(text) - own)
    shown = random.Random(0).sample(captions, min(12, len(captions)))
    return {**chair(captions, there), "named most though absent": wrong.most_common(8), "examples": shown}


def measure_likeness(ask: Ask, photos: Sequence[Photo]) -> dict:
    """CIDEr-D against people's sentences."""
    described = [photo for photo in photos if photo.captions]
    captions = ask([(photo, CAPTION) for photo in described], LONGEST)
    return {
        "pictures": len(described),
        "cider": round(cider(captions, [list(photo.captions) for photo in described]), 3),
    }


def measure_questions(ask: Ask, photos: Sequence[Photo]) -> dict:
    """Share of people's questions (VQA) answered with the very words that most people chose, by kind."""
    asked = [(photo, *pair) for photo in photos for pair in photo.questions]
    answers = ask([(photo, f"answer en {question.lower().strip()}") for photo, question, _ in asked], ANSWER)
    right: dict[str, list[bool]] = {}
    for (_, question, truth), answer in zip(asked, answers, strict=True):
        right.setdefault(_kind(question, truth), []).append(answer == truth.lower().strip())
    return {kind: {"questions": len(own), "right": round(sum(own) / len(own), 3)} for kind, own in right.items()}


def _kind(question: str, answer: str) -> str:
    if answer in ("yes", "no"):
        return "yes or no"
    return "number" if answer.isdigit() else "colour" if "color" in question.lower() else "other"
