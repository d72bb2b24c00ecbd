"""How Fuyu finds objects: each object is asked for alone, for the model answers with places and no names."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mmcli.engine.collect import complete
from mmcli.engine.sampling import Sampling
from mmcli.errors import ModelError
from mmcli.models.family import Found
from mmcli.types import Completion, Timings

if TYPE_CHECKING:
    from PIL import Image

    from mmcli.models.loaded import Loaded


def find(
    loaded: "Loaded",
    images: "Sequence[Image.Image]",
    labels: Sequence[str],
    *,
    masks: bool = False,
    sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
    max_tokens: int = 512,
    least: float | None = None,
    beams: int = 1,
) -> list[Found]:
    """What each RGB image shows of `labels`, in their order.

    All images are asked about one object at a time: of this model every row's cache is large. It knows no masks and no
    probabilities, so `masks` and `least` are not asked of it. ModelError where the tokenizer lacks what places are
    made of.
    """
    processor = loaded.processor
    if processor.grammar is None:
        raise ModelError("The model's tokenizer.json lacks the tokens of boxes and points", "Download the model again")
    choice: dict[str, Any] = {"beams": beams} if beams > 1 else {"sampling": sampling}
    answers = []
    for label in labels:
        inputs = processor.inputs([[image] for image in images], [processor.task_prompt("detect", label)] * len(images))
        written = complete(loaded.model, inputs, stop_ids=processor.stop_ids, max_tokens=max_tokens, **choice)
        answers.append(written)
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
    return Found(
        ids=tuple(id for _, answer in answers for id in answer.ids),
        logprobs=tuple(value for _, answer in answers for value in answer.logprobs),
        ended=all(answer.ended for _, answer in answers),
        timings=Timings(
            sum(answer.timings.prefill for _, answer in answers),
            sum(answer.timings.decode for _, answer in answers),
            batch,
        ),
        objects=tuple(replace(one, label=label) for label, own in parsed for one in own.objects),
        text="\n".join(own.text for _, own in parsed),
        problems=tuple(dict.fromkeys(problems)),
    )
