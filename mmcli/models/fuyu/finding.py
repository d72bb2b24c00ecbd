"""How Fuyu finds objects: each object is asked for alone, for the model answers with places and no names."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mmcli.engine.collect import complete
from mmcli.errors import ModelError
from mmcli.models.finding import FindOptions, Found, found_in
from mmcli.types import Completion, Timings

if TYPE_CHECKING:
    from PIL import Image

    from mmcli.models.loaded import Loaded


def find(loaded: "Loaded", images: "Sequence[Image.Image]", labels: Sequence[str], options: FindOptions) -> list[Found]:
    """What each RGB image shows of `labels`, in their order.

    All images are asked about one object at a time: of this model every row's cache is large. It knows no masks and no
    probabilities. ModelError where the tokenizer lacks what places are
    made of.
    """
    processor = loaded.processor
    if processor.grammar is None:
        raise ModelError("The model's tokenizer.json lacks the tokens of boxes and points", "Download the model again")
    answers = []
    for label in labels:
        inputs = processor.inputs([[image] for image in images], [processor.task_prompt("detect", label)] * len(images))
        answers.append(complete(loaded.model, inputs, stop_ids=processor.stop_ids, **options.writing))
    return [
        _found(loaded, [(label, own[i]) for label, own in zip(labels, answers, strict=True)], len(images))
        for i in range(len(images))
    ]


def _found(loaded: "Loaded", answers: Sequence[tuple[str, Completion]], batch: int) -> Found:
    """The answers about one image as one: what is placed in each is what was asked for."""
    processor, grammar = loaded.processor, loaded.processor.grammar
    assert grammar is not None
    parsed = [(label, grammar.parse(answer.tokens, processor.decode)) for label, answer in answers]
    problems = [problem for _, own in parsed for problem in own.problems]
    problems += [f'"{label}" was answered without a place' for label, own in parsed if not own.objects]
    written = [answer for _, answer in answers]
    timings = Timings(sum(one.timings.prefill for one in written), sum(one.timings.decode for one in written), batch)
    objects = [replace(one, label=label) for label, own in parsed for one in own.objects]
    return found_in(written, objects, [own.text for _, own in parsed], problems, timings)
