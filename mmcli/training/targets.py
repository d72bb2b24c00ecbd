"""What a model is taught by an example, read back from the very tokens: prompts, answers, and objects in pixels."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, cast

import torch

from mmcli.errors import ModelError
from mmcli.example import Example
from mmcli.models.loaded import Loaded
from mmcli.models.registry import family_of
from mmcli.models.teaching import Row
from mmcli.output.schema import Object
from mmcli.tasks.result import find_masks
from mmcli.types import Token

if TYPE_CHECKING:
    from mmcli.decode.objects import ParsedObject
    from mmcli.engine.model import GenerativeModel
    from mmcli.hub.resolve import Checkpoint


@dataclass(frozen=True)
class Target:
    """One prompt and the answer that is learned to it, as text."""

    prompt: str
    answer: str
    ids: tuple[int, ...]  # of the answer, without its end
    task: str


def without_weights(checkpoint: "Checkpoint", labels: frozenset[str]) -> Loaded:
    """A model as far as examples need it to become tokens: its processor and its configuration, and no weights.

    `labels` are those that it will learn. Raises ModelError for a family that mmcli cannot train.
    """
    family = family_of(checkpoint.config, checkpoint.name)
    if family.teaching is None:
        raise ModelError(f"mmcli cannot train {family.name}", "Choose a model of another family")
    raw = family.teaching.configured(checkpoint.config, sorted(labels))
    config = family.read_config(raw)
    processor = family.processor(checkpoint.folder, config, raw)
    model = cast("GenerativeModel", None)  # nothing that makes tokens asks for it
    return Loaded(model, processor, checkpoint, config, torch.device("cpu"), torch.float32, family=family)


def targets(loaded: Loaded, example: Example, seed: int = 0) -> list[Target]:
    """What is learned from an example. Raises InputError for one that cannot be learned."""
    assert loaded.family is not None and loaded.family.teaching is not None
    rows = loaded.family.teaching.rows(loaded, example, random.Random(seed))
    return [target for row in rows for target in _of_row(loaded, row, example.task)]


def _of_row(loaded: Loaded, row: Row, task: str) -> Iterator[Target]:
    """Each run of learned tokens with the text before it, of each question by itself."""
    questions = row.question or (0,) * len(row.tokens)
    places = sorted(range(len(row.tokens)), key=lambda place: questions[place])
    prompt: list[int] = []
    for (_, learned), run in groupby(places, key=lambda place: (questions[place], row.learned[place])):
        ids = [row.tokens[place] for place in run]
        if not learned:
            prompt = ids
            continue
        answer = tuple(id for id in ids if id not in loaded.processor.stop_ids)
        yield Target(_text(loaded, prompt), loaded.processor.decode(answer), answer, task)


def _text(loaded: Loaded, ids: list[int]) -> str:
    return loaded.processor.decode(ids).strip()


def objects_of(loaded: Loaded, target: Target) -> "list[ParsedObject]":
    """The objects that an answer names, as they are read when the model is used."""
    grammar = loaded.processor.grammar_for(target.prompt)
    if grammar is None or not grammar.finds_places(target.ids):
        return []
    return grammar.parse([Token(id, 0.0) for id in target.ids], loaded.processor.decode).objects


def placed(loaded: Loaded, target: Target, width: int, height: int) -> list[Object]:
    """The same in pixels of an image of that size: boxes, and masks from their codes."""
    found, grammar = objects_of(loaded, target), loaded.processor.grammar_for(target.prompt)
    if grammar is None:
        return []
    boxes = [grammar.box(one.loc, width, height) for one in found]
    masks = find_masks(found, boxes, loaded, grammar, width, height)
    return [
        Object(one.label, box, tuple(one.loc), mask=mask) for one, box, mask in zip(found, boxes, masks, strict=True)
    ]


def once(objects: list[Object]) -> list[Object]:
    """Objects without those that come again with a mask: a box of its own, and then outlined."""
    masked = {(one.label, one.raw_box) for one in objects if one.mask is not None}
    return [one for one in objects if one.mask is not None or (one.label, one.raw_box) not in masked]
