"""How good a model's answers are about data whose right answers are known."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mmcli.api import Model
from mmcli.errors import InputError
from mmcli.example import Example, LabelledObject
from mmcli.media.sources import one_named
from mmcli.models.drawn_masks import pixels
from mmcli.models.objects_in_text import with_objects
from mmcli.models.prompts import question_prompt
from mmcli.output.schema import Object, Record
from mmcli.rle import encode
from mmcli.tasks.caption import CaptionRequest
from mmcli.tasks.chat import ChatRequest
from mmcli.tasks.detect import DetectRequest
from mmcli.tasks.segment import SegmentRequest
from mmcli.tasks.task import Request
from mmcli.tasks.transcribe import TranscribeRequest
from mmcli.training.metrics.boxes import Compared, Marked, average_precision, mask_overlap
from mmcli.training.metrics.cider import cider
from mmcli.training.metrics.library import library
from mmcli.training.metrics.speech import error_rates

# The measure by which models are compared, by what most of the examples are about; the others are said beside it.
MAIN = {"caption": "CIDEr-D", "detect": "AP50", "segment": "mask AP50", "chat": "exact match", "transcribe": "WER"}
LOWER = frozenset({"WER", "CER"})  # is better
LEAST = 0.01  # probability from which on objects count: AP weighs them by their order

Each = Callable[[Record], None]


@dataclass(frozen=True)
class Measures:
    """What was measured: values by their names, and the name of the one by which models are compared."""

    values: Mapping[str, float]
    main: str
    counts: Mapping[str, int]  # answers by task, and how many inputs "failed", which are not measured

    @property
    def value(self) -> float:
        """The one by which models are compared; NaN where it could not be measured."""
        return self.values.get(self.main, math.nan)

    @property
    def lower_is_better(self) -> bool:
        return self.main in LOWER


def require_libraries(examples: Iterable[Example]) -> None:
    """Raise UsageError where a library is missing by which answers to these examples are measured."""
    tasks = {example.task for example in examples}
    if tasks & {"detect", "segment"}:
        library("pycocotools.cocoeval", "AP of boxes")
    if "transcribe" in tasks:
        library("jiwer", "WER")


def evaluate(
    model: Model, examples: Sequence[Example], *, batch_size: int | None = None, each: Each | None = None
) -> Measures:
    """Ask the model what the examples tell, and measure its answers; `each` is given the record of each.

    Boxes: every label is asked for of which all objects in an image are marked, so that what is found in vain counts;
    without such labels those that are marked. Texts that are places (`<loc0001>…`) count as boxes. Captions of one
    image are its references. Of conversations all turns are asked, behind the model's own earlier answers. Raises
    ModelError where the model cannot do a task, UsageError where a library is missing, InputError without examples.
    """
    examples = _together([with_objects(example) for example in examples])
    if not examples:
        raise InputError("There are no examples to measure answers by")
    require_libraries(examples)
    tasks = Counter(example.task for example in examples)
    asking = _Asking(model, batch_size, each or (lambda record: None))
    values: dict[str, float] = {}
    for task, measure in _MEASURES.items():
        if own := [example for example in examples if example.task == task]:
            values |= {name: value for name, value in measure(asking, own).items() if name not in values}
    return Measures(values, MAIN[tasks.most_common(1)[0][0]], dict(asking.counts))


def _together(examples: list[Example]) -> list[Example]:
    """The same, where images that show nothing are asked for what the others are: their readers see no masks."""
    if not any(example.task == "segment" for example in examples):
        return examples
    return [
        replace(example, task="segment") if example.task == "detect" and not example.objects else example
        for example in examples
    ]


class _Asking:
    """A model, and what became of what it was asked."""

    def __init__(self, model: Model, batch_size: int | None, each: Each):
        self.model, self.batch_size, self._each = model, batch_size, each
        self.counts: Counter[str] = Counter(failed=0)

    def records(self, request: Request, paths: Sequence[Path]) -> Iterator[Record | None]:
        """The record of each image, in their order; None for one that failed."""
        sources = [one_named(str(path)) for path in paths]
        for outcome in self.model.answers(request, sources, batch_size=self.batch_size):
            yield self.count(outcome.record)

    def count(self, record: Record) -> Record | None:
        """Hand a record on; None in the place of one that failed."""
        self._each(record)
        self.counts["failed" if record.error is not None else record.task] += 1
        return None if record.error is not None else record

    def texts(
        self, asked: Sequence[tuple[str | None, Path]], make: Callable[[str | None], Request]
    ) -> list[str | None]:
        """The answers to prompts (None: the task's own) about images, those of one prompt in batches."""
        answers: list[str | None] = [None] * len(asked)
        for prompt in dict.fromkeys(prompt for prompt, _ in asked):
            own = [i for i, (other, _) in enumerate(asked) if other == prompt]
            for i, record in zip(own, self.records(make(prompt), [asked[i][1] for i in own]), strict=True):
                answers[i] = None if record is None else record.text
        return answers


# -- texts -------------------------------------------------------------------------------------------------------


def _captions(asking: _Asking, examples: list[Example]) -> dict[str, float]:
    references: dict[tuple[str | None, Path], list[str]] = {}
    for example in examples:
        one = example.exchanges[0]
        references.setdefault((one.prompt, example.images[0]), []).append(one.answer)
    answers = asking.texts(list(references), lambda prompt: CaptionRequest(prompt=prompt))
    pairs = [(said, own) for said, own in zip(answers, references.values(), strict=True) if said is not None]
    if not pairs:
        return {}
    return {"CIDEr-D": cider([said for said, _ in pairs], [own for _, own in pairs])}


def _chats(asking: _Asking, examples: list[Example]) -> dict[str, float]:
    """Which share of answers are the very words, but for case and white space."""
    turns = asking.model.loaded.processor.capabilities.turns
    plain = [example for example in examples if not turns and len(example.images) == 1]
    processor = asking.model.loaded.processor
    asked = [
        (question_prompt(processor, one.prompt) if example.questions and one.prompt else one.prompt, example.images[0])
        for example in plain
        for one in example.exchanges
    ]
    answers = asking.texts(asked, lambda prompt: ChatRequest(prompt=prompt))
    wanted = [one.answer for example in plain for one in example.exchanges]
    pairs = [(said, right) for said, right in zip(answers, wanted, strict=True) if said is not None]
    for example in examples:
        if turns or len(example.images) != 1:
            pairs += _conversation(asking, example)
    right = [_plain(said) == _plain(wanted) for said, wanted in pairs]
    return {"exact match": sum(right) / len(right)} if right else {}


def _conversation(asking: _Asking, example: Example) -> list[tuple[str, str]]:
    chat = asking.model.conversation(system=example.system or "")
    pairs = []
    about = [str(path) for path in (*example.images, *example.audio)]
    for one in example.exchanges:
        try:
            record = asking.count(chat.ask(one.prompt or "", *about))
        except InputError:
            asking.counts["failed"] += 1
            break
        about = []
        pairs += [(record.text, one.answer)] if record is not None else []
    return pairs


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".")


def _transcripts(asking: _Asking, examples: list[Example]) -> dict[str, float]:
    from mmcli.batch.outcome import Outcome

    sources = [one_named(str(example.audio[0])) for example in examples]
    events = asking.model.transcripts(TranscribeRequest(), sources, batch_size=asking.batch_size)
    records = [asking.count(event.record) for event in events if isinstance(event, Outcome)]
    pairs = [
        (example.exchanges[0].answer, record.text)
        for example, record in zip(examples, records, strict=True)
        if record is not None
    ]
    return error_rates([wanted for wanted, _ in pairs], [got for _, got in pairs]) if pairs else {}


# -- objects -----------------------------------------------------------------------------------------------------


def _boxes(asking: _Asking, examples: list[Example]) -> dict[str, float]:
    compared = _compared(asking, examples, masks=False)
    return average_precision(compared, _labels(compared))


def _masks(asking: _Asking, examples: list[Example]) -> dict[str, float]:
    compared = _compared(asking, examples, masks=True)
    labels = _labels(compared)
    outlined = average_precision(compared, labels, masks=True)
    values = {f"mask {name}": value for name, value in outlined.items()} | mask_overlap(compared)
    return values | average_precision(compared, labels)


def _labels(compared: list[Compared]) -> list[str]:
    return sorted({mark.label for one in compared for mark in one.truth})


def _compared(asking: _Asking, examples: list[Example], *, masks: bool) -> list[Compared]:
    """What is marked in each image beside what is found there."""
    found: dict[int, list[Record]] = {}
    for labels, own in _asked(asking.model, examples):
        request = _request(asking.model, labels, masks)
        for i, record in zip(own, asking.records(request, [examples[i].images[0] for i in own]), strict=True):
            if record is not None:
                found.setdefault(id(examples[i]), []).append(record)
    return [_one(example, found[id(example)]) for example in examples if id(example) in found]


def _wanted(example: Example) -> frozenset[str]:
    """The labels that an image is asked for."""
    return example.exhaustive or frozenset(one.label for one in example.objects)


def _asked(model: Model, examples: list[Example]) -> Iterator[tuple[list[str], list[int]]]:
    """Labels that are asked for together, and the examples that are asked for them.

    Models with a way of their own to find are given all labels, others one at a time, as they were mostly trained.
    """
    family = model.loaded.family
    whole = family is not None and family.find is not None
    groups: dict[tuple[str, ...], list[int]] = {}
    for i, example in enumerate(examples):
        labels = tuple(sorted(_wanted(example)))
        for one in [labels] if whole and labels else [(label,) for label in labels]:
            groups.setdefault(one, []).append(i)
    for labels, own in groups.items():
        yield list(labels), own


def _request(model: Model, labels: list[str], masks: bool) -> Request:
    least = LEAST if model.loaded.processor.capabilities.probabilities else None
    kind = SegmentRequest if masks else DetectRequest
    return kind(words=" ; ".join(labels), min_score=least)


def _one(example: Example, records: list[Record]) -> Compared:
    width, height = records[0].width or 1, records[0].height or 1
    labels = _wanted(example)
    truth = [_marked(one, width, height) for one in example.objects if one.label in labels]
    found = [_found(one) for record in records for one in record.objects if one.label in labels]
    return Compared(width, height, truth, found)


def _marked(one: LabelledObject, width: int, height: int) -> Marked:
    x0, y0, x1, y1 = one.box
    mask = None if one.mask is None else encode(pixels(one.mask, width, height))
    return Marked(one.label, (x0 * width, y0 * height, x1 * width, y1 * height), mask=mask)


def _found(one: Object) -> Marked:
    score = one.probability if one.probability is not None else 1.0 if one.score is None else math.exp(one.score)
    return Marked(one.label, one.box, score, one.mask)


_MEASURES: dict[str, Callable[[_Asking, list[Example]], dict[str, float]]] = {
    "caption": _captions,
    "detect": _boxes,
    "segment": _masks,
    "chat": _chats,
    "transcribe": _transcripts,
}
