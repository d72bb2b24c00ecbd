"""Objects that stand in a suffix as location tokens, as objects: by them answers are measured, and models learn them
that write places in a way of their own."""

import re
from collections.abc import Iterable
from dataclasses import replace

from mmcli.decode import LOCATIONS
from mmcli.decode.locations import decode_box
from mmcli.decode.segments import SEPARATOR
from mmcli.example import Example, LabelledObject

_OBJECT = re.compile(r"((?:<loc\d{4}>){4})(?:<seg\d{3}>)*([^<;]*)")
_LOCATION = re.compile(r"<loc(\d{4})>")


def with_objects(example: Example) -> Example:
    """An example of the task detect or segment whose answer names places in its text, with those as its objects.

    Masks are left out: which codebook their codes are of is not said. Others are as they were.
    """
    if example.task not in ("detect", "segment") or example.objects or not example.exchanges:
        return example
    prompt, answer = example.exchanges[0].prompt or "", example.exchanges[0].answer
    words = prompt.strip().partition(" ")[2]
    labels = [one.strip() for one in words.split(SEPARATOR) if one.strip()]
    objects = tuple(_objects(answer, labels))
    return replace(example, task="detect", exchanges=(), objects=objects, exhaustive=frozenset(labels))


def labels_of(examples: Iterable[Example]) -> list[str]:
    """All labels that examples show or are known not to show, those in their texts too."""
    found: set[str] = set()
    for example in map(with_objects, examples):
        found |= {one.label for one in example.objects} | example.exhaustive
    return sorted(found)


def _objects(answer: str, labels: list[str]) -> list[LabelledObject]:
    found = []
    for places, name in _OBJECT.findall(answer):
        loc = tuple(int(value) for value in _LOCATION.findall(places))
        label = name.strip() or (labels[0] if len(labels) == 1 else "")
        if label and max(loc) < LOCATIONS and loc[0] < loc[2] and loc[1] < loc[3]:
            found.append(LabelledObject(label, decode_box(loc, 1, 1)))
    return found
