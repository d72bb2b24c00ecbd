"""What models that write places as location tokens are taught: prompts, and answers of objects and texts."""

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mmcli.decode.segments import SEPARATOR
from mmcli.errors import InputError
from mmcli.example import Example, LabelledObject
from mmcli.models.object_text import object_text
from mmcli.models.prompts import question_prompt

if TYPE_CHECKING:
    from mmcli.models.loaded import Loaded

MOST_ABSENT = 4  # labels that are asked for in vain, of one image


def exchanges(loaded: "Loaded", example: Example) -> list[tuple[str, str]]:
    """Prompts and answers of the texts of an example. Raises InputError for an answer that holds a control token."""
    found = []
    for one in example.exchanges:
        prompt = one.prompt
        if prompt is None:
            prompt = loaded.processor.task_prompt(example.task, "")
        elif example.questions:
            prompt = question_prompt(loaded.processor, prompt)
        found.append((prompt, one.answer.strip()))
    return found


def asked_labels(example: Example, rng: random.Random) -> list[str]:
    """The labels that an image is asked for: all that it shows, and some of those that it is known not to show."""
    there = list(dict.fromkeys(one.label for one in example.objects))
    absent = sorted(example.exhaustive - set(there))
    return there + sorted(rng.sample(absent, min(len(absent), MOST_ABSENT)))


def objects_text(loaded: "Loaded", example: Example, labels: Sequence[str], most: int | None = None) -> str:
    """The answer that names the objects of these labels, in the labels' order, each label's from top to bottom.

    With the task segment each has its mask codes. `most` objects of a label are named at most. Raises InputError.
    """
    chosen: list[LabelledObject] = []
    for label in labels:
        own = sorted((one for one in example.objects if one.label == label), key=lambda one: one.box[1::-1])
        chosen += own[:most]
    for one in chosen:
        if SEPARATOR in one.label:
            raise InputError(f"The label {one.label!r} in {example.where} holds {SEPARATOR!r}", "Rename it")
        if example.task == "segment" and one.mask is None:
            what = f'"{one.label}" in {example.where} has a box and no outline'
            raise InputError(what, "Train the task detect with it")
    return object_text(chosen, loaded.mask_vqvae() if example.task == "segment" and chosen else None)
