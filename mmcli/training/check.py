"""What there is to say of data before a model is trained with them: counts, and what looks wrong."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from mmcli.boxes import area
from mmcli.errors import InputError, UsageError
from mmcli.example import Example
from mmcli.models.family import Capabilities
from mmcli.models.loaded import Loaded
from mmcli.training.data.rows import BadRow, Read
from mmcli.training.targets import objects_of, targets

FEW = 10  # objects of a label: fewer teach little
SMALL = (8 / 1024) ** 2  # share of an image: objects of less than 8 location steps a side are hardly seen
NAMED = 5  # of a kind that is named


@dataclass
class Found:
    """What was read, counted as it comes."""

    examples: list[Example] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)
    unlearnable: list[BadRow] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)  # learned by each example
    renamed: set[str] = field(default_factory=set)  # labels as they are learned, where that is otherwise than marked

    def add(self, row: Read) -> None:
        """Count a row."""
        (self.bad if isinstance(row, BadRow) else self.examples).append(row)  # type: ignore[arg-type]

    def learn(self, loaded: Loaded, examples: Iterable[Example]) -> Iterator[Example]:
        """The examples that the model can learn, one at a time; the others are kept with why."""
        for example in examples:
            try:
                own = targets(loaded, example)
            except (InputError, UsageError) as error:  # a task that the model does not know
                self.unlearnable.append(BadRow(example.where, error.what))
                continue
            self.tokens.append(sum(len(one.ids) + 1 for one in own))
            if example.objects:
                read = {one.label for target in own for one in objects_of(loaded, target)}
                self.renamed |= read - {one.label for one in example.objects}
            yield example


def counts(found: Found) -> list[tuple[str, str]]:
    """Rows of a table: what there is, and how many."""
    examples = found.examples
    rows = [(f"examples to {task}", f"{count:,}") for task, count in Counter(e.task for e in examples).most_common()]
    rows.append(("pictures", f"{len({path for one in examples for path in one.images}):,}"))
    rows.append(("recordings", f"{len({path for one in examples for path in one.audio}):,}"))
    rows.append(("questions and answers", f"{sum(len(one.exchanges) for one in examples):,}"))
    rows.append(("objects", f"{sum(len(one.objects) for one in examples):,}"))
    rows.append(("objects with a mask", f"{sum(o.mask is not None for one in examples for o in one.objects):,}"))
    shown_none = sum(not one.objects for one in examples if one.task in ("detect", "segment") and not one.exchanges)
    rows.append(("pictures that show none", f"{shown_none:,}"))
    rows.append(("bad rows", f"{len(found.bad):,}"))
    rows.append(("of no use to the model", f"{len(found.unlearnable):,}"))
    if found.tokens:
        rows.append(("tokens learned", f"{sum(found.tokens):,}, {max(found.tokens):,} of one example at most"))
    return [(name, value) for name, value in rows if value != "0"]


def labels(examples: Sequence[Example]) -> list[tuple[str, int, int]]:
    """Each label with how many objects there are of it, and in how many pictures, the most frequent first."""
    objects = Counter(one.label for example in examples for one in example.objects)
    pictures = Counter(label for example in examples for label in {one.label for one in example.objects})
    return [(label, count, pictures[label]) for label, count in objects.most_common()]


def remarks(found: Found, able: Capabilities) -> list[str]:
    """What looks wrong, a sentence each; `able` says what the model can do that is to learn."""
    renamed = [f"Labels are learned in another spelling than they are marked: {_named(sorted(found.renamed))}"]
    own = [*(renamed if found.renamed else []), *untaught(found.examples, able)]
    return [*own, *_of_labels(found.examples), *_of_objects(found.examples), *_of_texts(found.examples)]


def untaught(examples: Sequence[Example], able: Capabilities) -> list[str]:
    """What of conversations a model that answers every question alone does not learn."""
    told = [example.where for example in examples if example.system]
    turns = [example.where for example in examples if example.task == "chat" and len(example.exchanges) > 1]
    if able.turns or not (told or turns):
        return []
    parts = [f"the system message of {_counted(told, 'conversation', 'conversations')}"] if told else []
    parts += [f"the order of questions in {_counted(turns, 'conversation', 'conversations')}"] if turns else []
    return [f"The model answers every question by itself, so it is not taught {' and '.join(parts)}"]


def _of_labels(examples: Sequence[Example]) -> Iterator[str]:
    counted = labels(examples)
    spellings: dict[str, list[str]] = defaultdict(list)
    for label, _, _ in counted:
        spellings["".join(c for c in label.casefold() if c.isalnum())].append(label)
    for own in spellings.values():
        if len(own) > 1:
            yield f"Labels that differ in spelling alone are taught as different ones: {_named(own)}"
    few = [label for label, count, _ in counted if count < FEW]
    if few:
        yield f"Fewer than {FEW} objects teach little: {_named(few)}"
    unseen = {label for one in examples for label in one.exhaustive} - {label for label, _, _ in counted}
    if unseen:
        yield f"Labels of which no object is marked anywhere are taught as absent: {_named(sorted(unseen))}"


def _of_objects(examples: Sequence[Example]) -> Iterator[str]:
    boxed = [(example, one) for example in examples for one in example.objects]
    small = [example.where for example, one in boxed if area(one.box) < SMALL]
    if small:
        what = _counted(small, "object is", "objects are")
        yield f"{what} smaller than 8 steps of a location on a side: {_named(small)}"
    double = [
        example.where for example in examples if len({(o.label, o.box) for o in example.objects}) < len(example.objects)
    ]
    if double:
        yield f"{_counted(double, 'picture has', 'pictures have')} an object twice: {_named(double)}"
    half = [
        example.where
        for example in examples
        if example.objects and 0 < sum(o.mask is None for o in example.objects) < len(example.objects)
    ]
    if half:
        what = _counted(half, "picture has", "pictures have")
        yield f"{what} objects with and without a mask, of which the boxes alone are taught: {_named(half)}"


def _of_texts(examples: Sequence[Example]) -> Iterator[str]:
    answers: dict[object, list[Example]] = defaultdict(list)
    for example in examples:
        if example.exchanges and example.task in ("chat", "transcribe"):
            first = example.exchanges[0]
            answers[example.images, example.audio, example.system, first.prompt].append(example)
    several = [own[1].where for own in answers.values() if len({one.exchanges[0].answer for one in own}) > 1]
    if several:
        yield f"{_counted(several, 'question has', 'questions have')} several answers: {_named(several)}"
    again = [own[1].where for own in answers.values() if len(own) > 1 and own[1].where not in several]
    if again:
        yield f"{_counted(again, 'example comes', 'examples come')} again: {_named(again)}"


def _counted(found: Sequence[str], one: str, several: str) -> str:
    return f"{len(found):,} {one if len(found) == 1 else several}"


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def spread(examples: Sequence[Example], count: int) -> list[Example]:
    """So many examples from all over the data, those with the most labels that no earlier one shows first."""
    step = max(len(examples) // (count * 20), 1)
    left, seen = list(examples[::step]), set[str]()
    chosen: list[Example] = []
    while left and len(chosen) < count:
        best = max(left, key=lambda one: (len({o.label for o in one.objects} - seen), bool(one.objects)))
        left.remove(best)
        chosen.append(best)
        seen |= {one.label for one in best.objects}
    return sorted(chosen, key=examples.index) if len(examples) < 100_000 else chosen
