"""From a model's answer to the record that tells of it."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mmcli.models.family import Found
from mmcli.tasks.task import Request
from mmcli.types import Completion

if TYPE_CHECKING:
    from mmcli.decode.segments import ParsedObject
    from mmcli.media.image import Picture
    from mmcli.models.loaded import Loaded

Record = dict[str, Any]


def picture_record(
    request: Request, said: Completion, loaded: "Loaded", name: str, picture: "Picture", seconds: float
) -> Record:
    """The record of one picture called `name`, which took `seconds` to read."""
    objects, problems = find_objects(request, said, loaded, picture.width, picture.height)
    return _record(
        request, said, loaded, name, (picture.width, picture.height), objects, problems, picture.notes, seconds
    )


def chat_record(
    request: Request,
    said: Completion,
    loaded: "Loaded",
    names: Sequence[str],
    picture: "Picture | None" = None,
    notes: Sequence[str] = (),
) -> Record:
    """The record of one question about the pictures and sounds called `names`, or about nothing of the kind.

    If all there is to see and hear is one `picture` it is like any other record. With several things `source` is a
    list, without one it is null, and but for that one picture there are no objects, for there are no pixels that could
    be meant.
    """
    source = names[0] if len(names) == 1 else list(names) or None
    size, objects, problems = (None, None), [], []
    if picture is not None:
        size = picture.width, picture.height
        objects, problems = find_objects(request, said, loaded, *size)
    return _record(request, said, loaded, source, size, objects, problems, notes, 0.0)


def _record(
    request: Request,
    said: Completion,
    loaded: "Loaded",
    source: Any,
    size: tuple[int | None, int | None],
    objects: list[Record],
    problems: list[str],
    notes: Sequence[str],
    seconds: float,
) -> Record:
    """Times are in seconds: `load` the picture's own, `prefill` and `decode` those of the `batch` rows together."""
    from mmcli.output.record import record

    entry = record(
        task=request.task,
        source=source,
        model=loaded.checkpoint.name,
        revision=loaded.checkpoint.revision,
        width=size[0],
        height=size[1],
        prompt=request.prompt_for(loaded.processor),
        text=said.text if isinstance(said, Found) else loaded.processor.decode(said.ids),
        truncated=not said.ended,
        objects=objects,
        problems=problems,
        notes=notes,
        timings={"load": seconds, "prefill": said.timings.prefill, "decode": said.timings.decode},
        token_ids=said.ids if request.token_ids else None,
    )
    entry["timings"] |= {"batch": said.timings.batch, "tokens": len(said.ids)}
    return entry


def find_objects(
    request: Request, said: Completion, loaded: "Loaded", width: int, height: int
) -> tuple[list[Record], list[str]]:
    """The objects in an answer, in pixels of a picture of that size, and what was wrong with it.

    Any task's answer is read for objects if it holds location tokens: a prompt of the user's own may ask for them.
    """
    from mmcli.decode.locations import decode_box
    from mmcli.decode.segments import parse
    from mmcli.output.record import object_record

    vocabulary = loaded.processor.vocabulary
    if vocabulary is None:
        return [], []
    if isinstance(said, Found):
        found, problems = list(said.objects), list(said.problems)
    elif not request.finds_objects and all(vocabulary.location(id) is None for id in said.ids):
        return [], []
    else:
        parsed = parse(said.tokens, vocabulary, loaded.processor.decode, masks=request.finds_masks)
        found, problems = parsed.objects, list(parsed.problems)
    boxes = [decode_box(one.loc, width, height, request.loc_divisor) for one in found]
    masks = find_masks(found, boxes, loaded, width, height) if request.finds_masks else [None] * len(boxes)
    objects = [
        object_record(one.label, box, one.loc, one.score, mask, one.probability, one.found_by)
        for one, box, mask in zip(found, boxes, masks, strict=True)
    ]
    return objects, problems + _empty_masks(objects)


def _empty_masks(objects: Sequence[Record]) -> list[str]:
    """A sentence for each label whose masks hold no pixel."""
    from mmcli.output.rle import is_empty

    count = Counter(entry["label"] for entry in objects if "mask" in entry and is_empty(entry["mask"]))
    return [f'the mask of "{label}" is empty' + (f" ({n} times)" if n > 1 else "") for label, n in count.items()]


def find_masks(
    found: "Sequence[ParsedObject]",
    boxes: Sequence[tuple[float, float, float, float]],
    loaded: "Loaded",
    width: int,
    height: int,
) -> list[Any]:
    """The run-length encoded mask of each object, or None for one without mask codes."""
    masks: list[Any] = [None] * len(found)
    coded = [i for i, one in enumerate(found) if one.seg is not None]
    if not coded:
        return masks
    import torch

    from mmcli.decode.locations import pixel_box
    from mmcli.output.masks import paste_mask
    from mmcli.output.rle import encode

    decoder = loaded.mask_vqvae()
    with torch.inference_mode():
        codes = torch.tensor([found[i].seg for i in coded], device=next(decoder.parameters()).device)
        maps = decoder.decode(codes).float().cpu().numpy()
    for i, small in zip(coded, maps, strict=True):
        masks[i] = encode(paste_mask(small, pixel_box(boxes[i], width, height), width, height))
    return masks
