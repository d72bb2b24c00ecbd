"""How Florence-2 finds objects: each is asked for alone, and every image is read once for several of them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from mmcli.engine.collect import complete
from mmcli.models.finding import FindOptions, Found, found_in
from mmcli.models.florence2.processor import Florence2Processor
from mmcli.types import Completion, Timings

if TYPE_CHECKING:
    from PIL import Image

    from mmcli.models.loaded import Loaded

ROWS = 16  # questions that are asked side by side, at most


def find(loaded: "Loaded", images: "Sequence[Image.Image]", labels: Sequence[str], options: FindOptions) -> list[Found]:
    """What each RGB image shows of `labels`, in their order: boxes or outlines.

    Every object has the name that the user gave it. There are no probabilities.
    """
    asked = [(image, label) for image in range(len(images)) for label in labels]
    answers: list[Completion] = []
    for first in range(0, len(asked), ROWS):
        answers += _answers(loaded, images, asked[first : first + ROWS], options)
    size = len(labels)
    rows = [answers[first : first + size] for first in range(0, len(answers), size)]
    return [_found(loaded, labels, own, options.masks, len(images)) for own in rows]


def _answers(
    loaded: "Loaded",
    images: "Sequence[Image.Image]",
    asked: list[tuple[int, str]],
    options: FindOptions,
) -> list[Completion]:
    """One answer for each (number of an image, label)."""
    processor = cast(Florence2Processor, loaded.processor)  # the family's own
    first = asked[0][0]
    about = [image - first for image, _ in asked]
    prompts = [_prompt(processor, label, options.masks) for _, label in asked]
    inputs = processor.rows(images[first : asked[-1][0] + 1], about, prompts)
    return complete(loaded.model, inputs, stop_ids=processor.stop_ids, **options.writing)


def _prompt(processor: Florence2Processor, label: str, masks: bool) -> str:
    return processor.task_prompt("segment" if masks else "detect", label)


def _found(loaded: "Loaded", labels: Sequence[str], answers: list[Completion], masks: bool, batch: int) -> Found:
    """The answers about one image as one."""
    processor = cast(Florence2Processor, loaded.processor)
    objects, problems = [], []
    for label, answer in zip(labels, answers, strict=True):
        grammar = processor.grammar_for(_prompt(processor, label, masks))
        assert grammar is not None  # else nobody is asked
        # The label names what is found, so a place without a label is no fault.
        parsed = replace(grammar, labelled=False).parse(answer.tokens, processor.decode, masks=masks)
        objects += [replace(one, label=label) for one in parsed.objects]
        problems += parsed.problems
    timings = Timings(
        sum(answer.timings.prefill for answer in answers) / len(answers),
        sum(answer.timings.decode for answer in answers) / len(answers),
        batch,
    )
    return found_in(answers, objects, [processor.decode(answer.ids) for answer in answers], problems, timings)
