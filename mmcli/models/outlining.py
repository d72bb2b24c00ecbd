"""Masks of boxes that are given, by models that write four locations and sixteen codes: the locations are forced.

The answer to `segment cat` begins with where the cat is; which of the codes follow is then the model's choice, as if it
had found that place itself.
"""

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from mmcli.decode import CODES, CORNERS
from mmcli.decode.grammar import Grammar, automaton
from mmcli.decode.locations import DIVISOR, Box, Loc, encode_box, not_empty
from mmcli.decode.objects import ParsedObject
from mmcli.decode.segments import LocationGrammar, format_objects
from mmcli.engine.collect import complete
from mmcli.engine.logits import GrammarProcessor
from mmcli.engine.sampling import Sampling
from mmcli.models.finding import Found
from mmcli.types import Completion, Timings

if TYPE_CHECKING:
    from PIL import Image

    from mmcli.models.loaded import Loaded

ROWS = 8  # boxes that are asked about side by side, each with an image of its own


def outline(
    loaded: "Loaded",
    images: "Sequence[Image.Image]",
    boxes: Sequence[Sequence[tuple[str, Box]]],
    *,
    sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
    divisor: int | None = None,
) -> list[Found]:
    """The mask codes of what is in `boxes` of each RGB image: `models.family.Outline`."""
    asked = [
        (image, label, not_empty(encode_box(box, 1, 1, divisor or DIVISOR)))
        for image, own in enumerate(boxes)
        for label, box in own
    ]
    started = time.perf_counter()
    said: list[Completion] = []
    for first in range(0, len(asked), ROWS):
        said += _write(loaded, images, asked[first : first + ROWS], sampling)
    seconds = time.perf_counter() - started
    prefill = min(sum(one.timings.prefill for one in said[::ROWS]), seconds)
    timings = Timings(prefill, seconds - prefill, len(images))
    rows = list(zip(asked, said, strict=True))
    return [_found(loaded, [row for row in rows if row[0][0] == i], timings) for i in range(len(images))]


def _write(
    loaded: "Loaded", images: "Sequence[Image.Image]", asked: list[tuple[int, str, Loc]], sampling: Sampling
) -> list[Completion]:
    """What the model writes about each (number of an image, label, place)."""
    processor = loaded.processor
    prompts = [processor.task_prompt("segment", label) for _, label, _ in asked]
    inputs = processor.inputs([[images[image]] for image, _, _ in asked], prompts)
    end, vocabulary = min(processor.stop_ids), cast(LocationGrammar, processor.grammar)
    automata = [automaton(Grammar((), (), end, masks=True, box=loc), vocabulary) for _, _, loc in asked]
    size = loaded.config.decoder.vocabulary
    rules = GrammarProcessor(automata, size, loaded.device)
    return complete(
        loaded.model,
        inputs,
        stop_ids=processor.stop_ids,
        max_tokens=CORNERS + CODES,
        sampling=sampling,
        processor=rules,
    )


def _found(loaded: "Loaded", rows: list[tuple[tuple[int, str, Loc], Completion]], timings: Timings) -> Found:
    """The answers about one image as one."""
    vocabulary = cast(LocationGrammar, loaded.processor.grammar)
    objects = []
    for (_, label, loc), said in rows:
        # The rules let nothing else be written.
        seg = cast(tuple[int, ...], tuple(vocabulary.mask_code(id) for id in said.ids[CORNERS:]))
        objects.append(ParsedObject(label, loc, seg, math.nan))
    return Found(
        ids=tuple(id for _, said in rows for id in said.ids),
        logprobs=tuple(value for _, said in rows for value in said.logprobs),
        ended=True,
        timings=timings,
        objects=tuple(objects),
        text=format_objects((one.loc, one.seg, one.label) for one in objects),
    )
