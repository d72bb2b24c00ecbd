"""How nano finds things: each thing is asked for alone, in words that parse; the questions run side by side.

The boxes of `segment` are those of `detect`: masks are written for boxes that are there already.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from mmcli.decode import Token
from mmcli.decode.grammar import CODES, CORNERS, Grammar
from mmcli.decode.segments import ParsedObject, format_objects, parse
from mmcli.engine.generate import generate
from mmcli.engine.logits import GrammarProcessor
from mmcli.engine.sampling import Sampling
from mmcli.models.family import Found
from mmcli.models.nano.model import Seen
from mmcli.models.nano.words import known

if TYPE_CHECKING:
    from PIL import Image

    from mmcli.hub.load import Loaded

ROWS = 64  # questions that are asked side by side, at most: each has a cache of its own
MOST_OBJECTS = 12  # of one thing in one answer, as in training


@dataclass
class Asked:
    """One thing asked of one picture, and what came of it."""

    picture: int
    label: str  # as the user calls it
    thing: str  # as the model knows it
    tokens: list[Token]
    truncated: bool = False
    objects: tuple[ParsedObject, ...] = ()
    problems: tuple[str, ...] = ()


@torch.inference_mode()
def find(
    loaded: "Loaded",
    pictures: "Sequence[Image.Image]",
    things: Sequence[str],
    *,
    masks: bool = False,
    sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
    max_tokens: int = 512,
) -> list[Found]:
    """What each RGB picture shows of `things`, in their order; things that nano does not know are not asked for.

    Every object of the answer keeps the name that the user gave it. With `masks` each has its codes.
    """
    taught = loaded.config.things
    asked = [
        Asked(picture, label, thing, [])
        for picture in range(len(pictures))
        for label in dict.fromkeys(things)
        if (thing := known(label, taught)) is not None
    ]
    if not asked:
        return [Found((), "", (), False)] * len(pictures)
    weight = next(loaded.model.parameters())
    seen = loaded.model.look(loaded.processor.pixels(pictures).to(weight.device, weight.dtype))
    for some in _portions(asked):
        _boxes(loaded, seen, some, sampling, max_tokens)
    if masks:
        wanted = [(one, i) for one in asked for i in range(len(one.objects))]
        for some in _portions(wanted):
            _masks(loaded, seen, some, sampling)
    return [_found([one for one in asked if one.picture == picture]) for picture in range(len(pictures))]


def _portions(items: list) -> Iterator[list]:
    return (items[start : start + ROWS] for start in range(0, len(items), ROWS))


def _boxes(loaded: "Loaded", seen: Seen, asked: list[Asked], sampling: Sampling, max_tokens: int) -> None:
    """Let nano write the boxes of each thing."""
    ids = loaded.processor.text_ids
    separator, end = tuple(ids(" ;")), loaded.config.eos_token
    grammars = [Grammar((tuple(ids(f" {one.thing}")),), separator, end, most=MOST_OBJECTS) for one in asked]
    longest = MOST_OBJECTS * (CORNERS + max(len(grammar.labels[0]) for grammar in grammars) + len(separator))
    prompts = [f"detect {one.thing}" for one in asked]
    answers = _write(
        loaded, seen, prompts, [one.picture for one in asked], grammars, min(max_tokens, longest), sampling
    )
    for one, (tokens, ended) in zip(asked, answers, strict=True):
        parsed = parse(tokens, loaded.processor.vocabulary, loaded.processor.decode)
        one.tokens, one.truncated, one.problems = tokens, not ended, tuple(parsed.problems)
        one.objects = tuple(replace(found, label=one.label) for found in parsed.objects)


def _masks(loaded: "Loaded", seen: Seen, wanted: list[tuple[Asked, int]], sampling: Sampling) -> None:
    """Let nano write the mask codes for boxes that are there."""
    end = loaded.config.eos_token
    boxes = [one.objects[i].loc for one, i in wanted]
    grammars = [Grammar((), (), end, masks=True, box=box) for box in boxes]
    prompts = [f"segment {one.thing}" for one, _ in wanted]
    pictures = [one.picture for one, _ in wanted]
    answers = _write(loaded, seen, prompts, pictures, grammars, CORNERS + CODES, sampling)
    for (one, i), (tokens, _) in zip(wanted, answers, strict=True):
        codes = tokens[CORNERS:]
        seg = tuple(loaded.processor.vocabulary.mask_code(token.id) for token in codes)
        one.objects = (*one.objects[:i], replace(one.objects[i], seg=seg), *one.objects[i + 1 :])
        one.tokens += codes


def _write(
    loaded: "Loaded",
    seen: Seen,
    prompts: list[str],
    pictures: list[int],
    grammars: list[Grammar],
    max_tokens: int,
    sampling: Sampling,
) -> list[tuple[list[Token], bool]]:
    """Each row's tokens without the end, and whether it came to one."""
    processor, end = loaded.processor, loaded.config.eos_token
    inputs = replace(processor.rows(prompts), context=seen.about(pictures))
    rules = GrammarProcessor(grammars, processor.vocabulary, loaded.config.decoder.vocabulary, seen.store.device)
    rows: list[list[Token]] = [[] for _ in prompts]
    ended = [False] * len(rows)
    steps = generate(
        loaded.model,
        inputs,
        stop_ids=processor.stop_ids,
        max_tokens=max_tokens,
        sampling=sampling,
        processor=rules,
        drop_ended=True,
    )
    for events in steps:
        for event in events:
            if event.id == end:
                ended[event.row] = True
            else:
                rows[event.row].append(Token(event.id, event.logprob))
    return list(zip(rows, ended, strict=True))


def _found(asked: list[Asked]) -> Found:
    """The answers about one picture as one."""
    objects = tuple(found for one in asked for found in one.objects)
    text = format_objects((found.loc, found.seg, found.label) for found in objects)
    tokens = tuple(token for one in asked for token in one.tokens)
    problems = tuple(dict.fromkeys(problem for one in asked for problem in one.problems))
    return Found(objects, text, tokens, any(one.truncated for one in asked), problems)
