"""How nano finds objects: each label is asked for alone, in words that parse; the questions run side by side.

What the decoder writes and what the detector proposes become one answer (`joining`). The boxes of `segment` are those
of `detect`: masks are written for boxes that are there already.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from mmcli.decode import CODES, CORNERS, LOCATIONS
from mmcli.decode.grammar import Grammar, automaton
from mmcli.decode.locations import DIVISOR, Box, encode_box, not_empty
from mmcli.decode.objects import ParsedObject
from mmcli.decode.segments import format_objects, parse
from mmcli.engine.collect import complete
from mmcli.engine.logits import GrammarProcessor
from mmcli.engine.sampling import Sampling
from mmcli.errors import ModelError, UsageError
from mmcli.models.finding import FindOptions, Found
from mmcli.models.nano.config import CLASSES
from mmcli.models.nano.joining import (
    CROWDED,
    LEAST_CLASSIFIED,
    LEAST_LOGIT,
    UNCLASSIFIED,
    Candidate,
    Detection,
    candidates,
    join,
)
from mmcli.models.nano.model import Nano, Seen
from mmcli.models.nano.picodet import detections, overlaps, uncrowded
from mmcli.models.nano.processor import NanoProcessor
from mmcli.models.nano.words import known
from mmcli.types import Completion, Timings, Token

if TYPE_CHECKING:
    from PIL import Image

    from mmcli.models.loaded import Loaded

ROWS = 64  # questions that are asked side by side, at most: each has a cache of its own
# Tokens that are read of each at least, padding among them: sums over them have another order where there are more.
PROMPT = 16
SHORT_PROMPT = 6  # … where rows lean on their image: no question about what the bundled weights know has more
MOST_OBJECTS = 12  # of one label in one answer that is written, as in training
MOST_DETECTIONS = 64  # of one label, overlapping ones included
ABSENT = 0.98  # share of an empty answer from which on none is written


@dataclass
class Asked:
    """One label asked of one image, and what came of it."""

    image: int
    label: str  # as the user calls it
    known_as: str  # as the model was taught it; "": it was not
    tokens: list[Token] = field(default_factory=list)
    ended: bool = True
    problems: tuple[str, ...] = ()
    candidates: list[Candidate] = field(default_factory=list)
    objects: tuple[ParsedObject, ...] = ()


@torch.inference_mode()
def find(loaded: "Loaded", images: "Sequence[Image.Image]", labels: Sequence[str], options: FindOptions) -> list[Found]:
    """What each RGB image shows of `labels`, in their order; those that nano does not know are not asked for.

    Every object of the answer keeps the name that the user gave it; without a `least` probability it is the one that
    the checkpoint was calibrated to. With masks each has its codes. UsageError for several beams.
    """
    if options.beams > 1:
        name = loaded.checkpoint.name
        raise UsageError(f"{name} finds each object by itself, so --beams cannot be used to find any", "Leave it out")
    taught = loaded.config.things
    asked = [
        Asked(image, label, known_as)
        for image in range(len(images))
        for label in dict.fromkeys(labels)
        if (known_as := known(label, taught)) is not None
    ]
    if not asked:
        return [_found([], Timings(batch=len(images)))] * len(images)
    started = time.perf_counter()
    seen = look(loaded, images)
    prefill = time.perf_counter() - started
    propose(loaded, seen, asked, options.sampling, options.max_tokens)
    for one in asked:
        kept = join(one.candidates, loaded.config.finding, options.least)
        one.objects = tuple(
            ParsedObject(one.label, box.loc, None, box.score, box.probability, box.found_by) for box in kept
        )
    if options.masks:
        wanted = [(one, i) for one in asked for i in range(len(one.objects))]
        for some in _portions(wanted):
            _masks(loaded, seen, some, options.sampling)
    timings = Timings(prefill, time.perf_counter() - started - prefill, len(images))
    return [_found([one for one in asked if one.image == i], timings) for i in range(len(images))]


@torch.inference_mode()
def outline(
    loaded: "Loaded",
    images: "Sequence[Image.Image]",
    boxes: Sequence[Sequence[tuple[str, Box]]],
    *,
    sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
    divisor: int | None = None,
) -> list[Found]:
    """The mask codes of what is in `boxes` of each RGB image; what nano does not know has none."""
    taught, asked = loaded.config.things, []
    for image, own in enumerate(boxes):
        for label, box in own:
            loc = not_empty(encode_box(box, 1, 1, divisor or DIVISOR))
            one = Asked(image, label, known(label, taught) or "", objects=(ParsedObject(label, loc, None, math.nan),))
            if not one.known_as:
                one.problems = (f'{loaded.checkpoint.name} does not know "{label}", so that has no mask',)
            asked.append(one)
    started = time.perf_counter()
    wanted = [(one, 0) for one in asked if one.known_as]
    seen = look(loaded, images) if wanted else None
    prefill = time.perf_counter() - started
    for some in _portions(wanted):
        _masks(loaded, cast(Seen, seen), some, sampling)
    timings = Timings(prefill, time.perf_counter() - started - prefill, len(images))
    return [_found([one for one in asked if one.image == i], timings) for i in range(len(images))]


@torch.inference_mode()
def look(loaded: "Loaded", images: "Sequence[Image.Image]") -> Seen:
    """Read RGB images, once for all that is asked of them."""
    model = cast(Nano, loaded.model)  # the family's own
    weight = model.like
    return model.look(_processor(loaded).pixels(images).to(weight.device, weight.dtype))


def _processor(loaded: "Loaded") -> NanoProcessor:
    return cast(NanoProcessor, loaded.processor)  # the family's own


@torch.inference_mode()
def propose(
    loaded: "Loaded",
    seen: Seen,
    asked: list[Asked],
    sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
    max_tokens: int = 512,
) -> None:
    """Give each of `asked` all the boxes that may be right, from the decoder and from the detector."""
    for some in _portions(asked):
        written = _boxes(loaded, seen, some, sampling, max_tokens)
        detected = _detections(loaded, seen, some)
        there = seen.there.tolist()
        classes = {label: number for number, label in enumerate(loaded.config.things[:CLASSES])}
        for one, (objects, presence), boxes in zip(some, written, detected, strict=True):
            own = 0.0 if boxes is None else there[one.image][classes[one.known_as]]
            one.candidates = candidates(objects, presence, boxes, own)


def _portions(items: list[Any]) -> Iterator[list[Any]]:
    return (items[start : start + ROWS] for start in range(0, len(items), ROWS))


def _filled(rows: list[Any], device: torch.device) -> list[Any]:
    """Questions to be asked side by side: on a GPU the last one again and again until they are `ROWS`, so that what is
    answered does not depend on how many there are (see `model.AT_ONCE`)."""
    return rows if device.type == "cpu" else rows + rows[-1:] * (ROWS - len(rows))


def _boxes(
    loaded: "Loaded", seen: Seen, asked: list[Asked], sampling: Sampling, max_tokens: int
) -> list[tuple[list[ParsedObject], float]]:
    """Let nano write boxes of each label → the boxes, and the log-odds that such an object is there.

    Unless it is sure that nothing is there it writes one box at least: how likely that is right is decided afterwards.
    """
    processor = _processor(loaded)
    ids = processor.text_ids
    separator, end = tuple(ids(" ;")), loaded.config.eos_token
    rows = _filled(asked, seen.store.device)
    grammars = [Grammar((tuple(ids(f" {one.known_as}")),), separator, end, most=MOST_OBJECTS) for one in rows]
    if not separator or not all(grammar.labels[0] for grammar in grammars):
        raise ModelError("The model's tokenizer.json has no tokens for what is asked", "Download the model again")
    longest = MOST_OBJECTS * (CORNERS + max(len(grammar.labels[0]) for grammar in grammars) + len(separator))
    prompts = [f"detect {one.known_as}" for one in rows]
    images = [one.image for one in rows]
    automata = [automaton(grammar, processor.grammar) for grammar in grammars]
    rules = Doubtful(automata, loaded.config.decoder.vocabulary, seen.store.device)
    answers = _write(loaded, seen.about(images), prompts, rules, min(max_tokens, longest), sampling)
    assert rules.presence is not None  # noted at the first step
    written = []
    for one, answer, presence in zip(asked, answers, rules.presence.tolist(), strict=False):  # not those that fill
        parsed = parse(answer.tokens, processor.grammar, processor.decode, merge=False)
        one.tokens, one.ended, one.problems = list(answer.tokens), answer.ended, tuple(parsed.problems)
        written.append((parsed.objects, presence))
    return written


def _detections(loaded: "Loaded", seen: Seen, asked: list[Asked]) -> list[list[Detection] | None]:
    """The detector's boxes of each label with the logits of the proposal classifier, best first; None for unknown
    ones."""
    classes = {label: number for number, label in enumerate(loaded.config.things[:CLASSES])}
    rows = [i for i, one in enumerate(asked) if one.known_as in classes]
    found: list[list[Detection] | None] = [None] * len(asked)
    if not rows:
        return found
    device = seen.store.device
    images = torch.tensor([asked[i].image for i in rows], device=device)
    labels = torch.tensor([classes[asked[i].known_as] for i in rows], device=device)
    boxes, logits, others = detections(seen.raw, loaded.config.image_size, images, labels, MOST_DETECTIONS)
    every = classify_detections(seen, images, labels, boxes, logits, others)
    boxes, logits, others, classified = (own.cpu() for own in every)
    locs = located(boxes)
    likely = (logits > LEAST_LOGIT) | (classified > LEAST_CLASSIFIED)
    likely &= (locs[..., 0] < locs[..., 2]) & (locs[..., 1] < locs[..., 3])
    # `candidates` would leave out the same ones, but one by one, of a hundred in each row.
    kept = uncrowded(locs.double(), likely, CROWDED)
    for i, there, *own in zip(rows, kept, locs, logits, others, classified, strict=True):
        places, *numbers = (x[there].tolist() for x in own)
        found[i] = [Detection(tuple(place), *rest) for place, *rest in zip(places, *numbers, strict=True)]
    return found


def located(boxes: Tensor) -> Tensor:
    """Boxes [..., 4] as (x0, y0, x1, y1) in 0..1 as `encode_box` gives them: y0, x0, y1, x1 in locations."""
    places = (boxes.double() * DIVISOR).clamp(0, LOCATIONS - 1).round().long()
    return places[..., [1, 0, 3, 2]]


def classify_detections(
    seen: Seen, images: Tensor, classes: Tensor, boxes: Tensor, logits: Tensor, others: Tensor
) -> tuple[Tensor, ...]:
    """R rows of detections as `picodet.detections` gives them, with the proposal classifier's logit as a fourth.

    A detection is classified by the proposal that overlaps it most. The proposals themselves stand behind the
    detections, because the proposal classifier may take one for the class though the detector does not.
    """
    proposed, own = seen.boxes[images], seen.logits[images]  # [R, N, 4], [R, N, 80]
    at = classes[:, None, None].expand(-1, own.shape[1], 1)
    logit, classified = own.gather(2, at)[..., 0], seen.classified[images].gather(2, at)[..., 0].to(own.dtype)
    other = own.scatter(2, at, -torch.inf).amax(2)
    over, nearest = overlaps(boxes, proposed).max(2)
    classified_there = torch.where(over > CROWDED, classified.gather(1, nearest), UNCLASSIFIED)
    pairs = ((boxes, proposed), (logits, logit), (others, other), (classified_there, classified))
    return tuple(torch.cat(pair, 1) for pair in pairs)


class Doubtful(GrammarProcessor):
    """Notes how likely a model thinks an empty answer, and lets only a sure one be empty."""

    presence: Tensor | None = None  # [B] log-odds that anything is there

    def restrict(self, logits: Tensor, states: Tensor) -> Tensor:
        allowed = super().restrict(logits, states)
        if self.presence is None:  # the first step
            absent = logits.softmax(-1)[:, self.end]
            self.presence = -torch.logit(absent, eps=1e-6)
            allowed[:, self.end].masked_fill_(absent < ABSENT, -torch.inf)
        return allowed


def _masks(loaded: "Loaded", seen: Seen, wanted: list[tuple[Asked, int]], sampling: Sampling) -> None:
    """Let nano write the mask codes for boxes that are there."""
    end = loaded.config.eos_token
    rows = _filled(wanted, seen.store.device)
    boxes = [one.objects[i].loc for one, i in rows]
    grammars = [Grammar((), (), end, masks=True, box=box) for box in boxes]
    prompts = [f"segment {one.known_as}" for one, _ in rows]
    images = [one.image for one, _ in rows]
    grammar = _processor(loaded).grammar
    automata = [automaton(one, grammar) for one in grammars]
    rules = GrammarProcessor(automata, loaded.config.decoder.vocabulary, seen.store.device)
    answers = _write(loaded, seen.about(images, boxes), prompts, rules, CORNERS + CODES, sampling)
    for (one, i), answer in zip(wanted, answers, strict=False):  # not those that fill
        codes = answer.tokens[CORNERS:]
        seg = cast(tuple[int, ...], tuple(grammar.mask_code(token.id) for token in codes))  # the rules let nothing else
        one.objects = (*one.objects[:i], replace(one.objects[i], seg=seg), *one.objects[i + 1 :])
        one.tokens += codes


def _write(
    loaded: "Loaded",
    seen: Seen,
    prompts: list[str],
    rules: GrammarProcessor,
    max_tokens: int,
    sampling: Sampling,
) -> list[Completion]:
    """What nano writes for each prompt; `seen` says which image it is about."""
    processor = _processor(loaded)
    least = PROMPT if cast(Nano, loaded.model).prefix_in is None else SHORT_PROMPT
    inputs = replace(processor.rows(prompts, least), context=seen)
    return complete(
        loaded.model,
        inputs,
        stop_ids=processor.stop_ids,
        max_tokens=max_tokens,
        sampling=sampling,
        processor=rules,
        drop_ended=True,
    )


def _found(asked: list[Asked], timings: Timings) -> Found:
    """The answers about one image as one."""
    objects = tuple(found for one in asked for found in one.objects)
    tokens = [token for one in asked for token in one.tokens]
    return Found(
        ids=tuple(token.id for token in tokens),
        logprobs=tuple(token.logprob for token in tokens),
        ended=all(one.ended for one in asked),
        timings=timings,
        objects=objects,
        text=format_objects((found.loc, found.seg, found.label) for found in objects),
        problems=tuple(dict.fromkeys(problem for one in asked for problem in one.problems)),
    )
