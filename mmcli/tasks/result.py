"""From a model's answer to its record."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import compress
from typing import TYPE_CHECKING, cast

from mmcli.boxes import inside
from mmcli.models.finding import Found
from mmcli.output.schema import Mask, Object, Quad, Record, Settings
from mmcli.output.sifting import sift
from mmcli.tasks.outline import in_image
from mmcli.tasks.settings import image_settings, key_of
from mmcli.tasks.task import Request
from mmcli.tasks.transcribe import Passage, TranscribeRequest, joined, main_language, unused
from mmcli.types import Completion

if TYPE_CHECKING:
    from mmcli.decode.objects import ObjectGrammar, ParsedObject, PointGrammar
    from mmcli.media.image import LoadedImage
    from mmcli.models.loaded import Loaded

ROUNDED = 0.006  # pixels: half of the last digit of a box in a record, and a little


def image_record(
    request: Request,
    completion: Completion,
    loaded: "Loaded",
    name: str,
    image: "LoadedImage",
    seconds: float,
    *,
    identity: str | None = None,
    remarks: Sequence[str] = (),
    given: Sequence[Object] | None = None,
    boxes_by: str | None = None,
) -> Record:
    """The record of one image called `name`, which took `seconds` to read; `remarks` are notes on the request.

    With objects that were `given`, found by the model `boxes_by`, it holds those.
    """
    settings = replace(image_settings(request, loaded), boxes_by=boxes_by)
    notes = (*image.notes, *remarks)
    return _record(request, completion, loaded, name, image, notes, settings, identity, seconds, given)


def chat_record(
    request: Request,
    completion: Completion,
    loaded: "Loaded",
    names: Sequence[str],
    image: "LoadedImage | None" = None,
    notes: Sequence[str] = (),
    *,
    system: str = "",
    identity: str | None = None,
) -> Record:
    """The record of one question about the images and recordings called `names`, or about nothing of the kind.

    If all inputs are one `image` it is like any other record. With several things `source` is a
    list, without one it is null, and but for that one image there are no objects, for there are no pixels that could
    be meant. `identity` tells apart what it is about; None where earlier turns decide the answer too.
    """
    source = names[0] if len(names) == 1 else tuple(names) or None
    settings = image_settings(request, loaded, system)
    return _record(request, completion, loaded, source, image, notes, settings, identity, 0.0)


def _record(
    request: Request,
    completion: Completion,
    loaded: "Loaded",
    source: str | tuple[str, ...] | None,
    image: "LoadedImage | None",
    notes: Sequence[str],
    settings: Settings,
    identity: str | None,
    seconds: float,
    given: Sequence[Object] | None = None,
) -> Record:
    size: tuple[int, int] | tuple[None, None] = (None, None)
    objects: list[Object] = []
    problems: list[str] = []
    if image is not None:
        size = image.width, image.height
        if given is None:
            objects, problems = find_objects(request, completion, loaded, *size)
        else:
            objects, problems = outlined(request, cast(Found, completion), loaded, given, *size)
            problems += _empty_masks(objects)
    prompt = request.prompt_for(loaded.processor)
    timings = {"load": seconds, "prefill": completion.timings.prefill, "decode": completion.timings.decode}
    return Record(
        task=request.task,
        source=source,
        model=loaded.checkpoint.name,
        revision=loaded.checkpoint.revision,
        key=key_of(request.task, loaded, prompt, settings, identity),
        settings=settings,
        width=size[0],
        height=size[1],
        prompt=prompt,
        text=completion.text if isinstance(completion, Found) else loaded.processor.decode(completion.ids),
        truncated=not completion.ended,
        objects=tuple(objects),
        problems=tuple(problems),
        notes=tuple(notes),
        timings=timings | {"batch": completion.timings.batch, "tokens": len(completion.ids)},
        token_ids=completion.ids if request.token_ids else None,
    )


def transcript_record(
    begun: Record,
    request: TranscribeRequest,
    passages: Sequence[Passage],
    loaded: "Loaded | None",
    *,
    notes: Sequence[str],
    identity: str | None,
) -> Record:
    """The record of a recording, from one that names it with its settings and times, and what was transcribed in it.

    Without speech no model may have been `loaded`; then nothing decides whether the record still answers.
    """
    coarse = loaded is not None and loaded.processor.capabilities.timestamps == "window"
    return replace(
        begun,
        key=None if loaded is None else key_of(request.task, loaded, None, begun.settings, identity),
        language=main_language(passages),
        text=joined(one.raw() for one in passages),
        truncated=any(one.text.truncated for one in passages if not one.dropped),
        segments=tuple(segment for one in passages for segment in one.segments()),
        timestamps="word" if request.words else "window" if coarse else "segment",
        notes=tuple(notes),
        timings={**begun.timings, "unused": unused(passages)},
        token_ids=tuple(id for one in passages for id in one.text.token_ids) if request.token_ids else None,
    )


def find_objects(
    request: Request, completion: Completion, loaded: "Loaded", width: int, height: int
) -> tuple[list[Object], list[str]]:
    """The objects in an answer, in pixels of an image of that size, and what was wrong with it.

    Any task's answer is read for objects if it tells places: a prompt of the user's own may ask for them.
    """
    grammar = loaded.processor.grammar_for(request.prompt_for(loaded.processor))
    if grammar is None:
        return [], []
    if isinstance(completion, Found):
        found, problems = list(completion.objects), list(completion.problems)
    elif not request.finds_objects and not grammar.finds_places(completion.ids):
        return [], []
    else:
        parsed = grammar.parse(completion.tokens, loaded.processor.decode, masks=request.finds_masks)
        found, problems = parsed.objects, list(parsed.problems)
    boxes = [grammar.box(one.loc, width, height, request.loc_divisor) for one in found]
    there = [not _is_outside(one, box) for one, box in zip(found, boxes, strict=True)]
    problems += [
        f'"{one.label}" lies outside the image' for one, inside in zip(found, there, strict=True) if not inside
    ]
    found, boxes = list(compress(found, there)), list(compress(boxes, there))
    masks: list[Mask | None] = [None] * len(boxes)
    if request.finds_masks or any(one.polygons for one in found):
        masks = find_masks(found, boxes, loaded, grammar, width, height)
    objects = [
        Object(
            label=one.label,
            box=box,
            raw_box=one.quad or tuple(one.loc),
            score=one.score if math.isfinite(one.score) else None,
            probability=one.probability,
            found_by=one.found_by,
            mask=mask,
            quad=find_quad(one, grammar, width, height),
        )
        for one, box, mask in zip(found, boxes, masks, strict=True)
    ]
    return sift(objects, nms=request.nms, most=request.max_objects), problems + _empty_masks(objects)


def outlined(
    request: Request, completion: Found, loaded: "Loaded", given: Sequence[Object], width: int, height: int
) -> tuple[list[Object], list[str]]:
    """Objects of an image of that size as they were given, each with its mask, and what was wrong.

    The integers are those that the model was given for the box; a box that it could not outline has no mask.
    """
    grammar = loaded.processor.grammar
    assert grammar is not None  # else it could not outline
    there = in_image(given, (width, height))
    boxes = []
    for (_, box), found in zip(there, completion.objects, strict=True):
        # Records hold rounded numbers; if these are the integers that the box had, they tell its pixels exactly.
        exact = grammar.box(found.loc, width, height, request.loc_divisor)
        same = all(abs(edge - own) < ROUNDED for edge, own in zip(exact, box, strict=True))
        boxes.append(exact if same else box)
    masks = find_masks(completion.objects, boxes, loaded, grammar, width, height)
    objects = [
        replace(one, raw_box=tuple(found.loc), mask=mask)
        for (one, _), found, mask in zip(there, completion.objects, masks, strict=True)
    ]
    lost = [one.label for one in given if inside(one.box, width, height) is None]
    problems = [f'"{label}" lies outside the image, or is a point' for label in lost]
    return objects, [*completion.problems, *problems]


def _is_outside(one: "ParsedObject", box: Sequence[float]) -> bool:
    """Whether nothing of a box is inside the image; points have no extent to lose, outlines do not count."""
    if one.quad is not None or one.polygons or len(one.loc) != 4:
        return False
    return box[0] >= box[2] or box[1] >= box[3]


def outline(one: "ParsedObject", grammar: "ObjectGrammar", width: int, height: int) -> Mask | None:
    """The mask of an object that was written as polygons; None for any other."""
    if not one.polygons:
        return None
    from mmcli.output.masks import polygon_mask
    from mmcli.rle import encode

    points = [cast("PointGrammar", grammar).points(polygon, width, height) for polygon in one.polygons]
    return encode(polygon_mask(points, width, height))


def find_quad(one: "ParsedObject", grammar: "ObjectGrammar", width: int, height: int) -> Quad | None:
    """The corners of a piece of text in pixels of an image of that size; None for anything else."""
    if one.quad is None:
        return None
    x0, y0, x1, y1, x2, y2, x3, y3 = cast("PointGrammar", grammar).points(one.quad, width, height)
    return x0, y0, x1, y1, x2, y2, x3, y3


def _empty_masks(objects: Sequence[Object]) -> list[str]:
    """A sentence for each label whose masks hold no pixel."""
    from mmcli.rle import is_empty

    count = Counter(one.label for one in objects if one.mask is not None and is_empty(one.mask))
    return [f'the mask of "{label}" is empty' + (f" ({n} times)" if n > 1 else "") for label, n in count.items()]


def find_masks(
    found: "Sequence[ParsedObject]",
    boxes: Sequence[tuple[float, float, float, float]],
    loaded: "Loaded",
    grammar: "ObjectGrammar",
    width: int,
    height: int,
) -> list[Mask | None]:
    """The run-length encoded mask of each object, or None for one without mask codes and polygons."""
    masks = [outline(one, grammar, width, height) for one in found]
    coded = [i for i, one in enumerate(found) if one.seg is not None]
    if not coded:
        return masks
    import torch

    from mmcli.decode.locations import pixel_box
    from mmcli.output.masks import paste_mask
    from mmcli.rle import encode

    decoder = loaded.mask_vqvae()
    with torch.inference_mode():
        codes = torch.tensor([found[i].seg for i in coded], device=next(decoder.parameters()).device)
        maps = decoder.decode(codes).float().cpu().numpy()
    for i, small in zip(coded, maps, strict=True):
        masks[i] = encode(paste_mask(small, pixel_box(boxes[i], width, height), width, height))
    return masks
