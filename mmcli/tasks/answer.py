"""From images and a request to the model's answer; the only part of the tasks that runs the engine."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mmcli.errors import MemoryShortage, raise_if_interrupted, ran_out_of_memory
from mmcli.tasks.task import Request

if TYPE_CHECKING:
    from PIL import Image

    from mmcli.engine.inputs import Inputs
    from mmcli.engine.sampling import Sampling
    from mmcli.engine.scheduler import Take
    from mmcli.models.finding import Find, Found
    from mmcli.models.loaded import Loaded
    from mmcli.types import Completion


def answer(
    loaded: "Loaded",
    images: "Sequence[Sequence[Image.Image]]",
    request: Request,
    on_token: Callable[[int, int], None] | None = None,
) -> "Sequence[Completion]":
    """Ask the model about each row of images; `on_token(row, id)` gets every token as it is written.

    A family that finds objects in a way of its own gives `Found`. Raises ModelError where the model cannot take the
    rows, or where memory runs out.
    """
    from mmcli.engine.collect import complete

    find = _own_find(loaded, request)
    if find is not None:
        return _find(find, loaded, [image for own in images for image in own], request)
    processor = loaded.processor
    beams = request.beams_for(loaded)
    choice: Any = {"beams": beams} if beams > 1 else {"sampling": _sampling(request)}
    started = time.perf_counter()
    try:
        return complete(
            loaded.model,
            processor.inputs(images, [request.prompt_for(processor)] * len(images)),
            stop_ids=processor.stop_ids,
            max_tokens=request.token_limit,
            started=started,
            on_token=on_token,
            **choice,
        )
    except RuntimeError as error:
        raise in_words(error, len(images), "picture") from error


def rows_join(loaded: "Loaded", request: Request) -> bool:
    """Whether a row of one image may begin while others are being answered (`answer_each`)."""
    return loaded.model.rows_join and request.beams_for(loaded) == 1 and _own_find(loaded, request) is None


def inputs_of(loaded: "Loaded", request: Request, image: "Image.Image") -> "Inputs":
    """What the model reads of a row of one image."""
    return loaded.processor.inputs([[image]], [request.prompt_for(loaded.processor)])


def answer_each(
    loaded: "Loaded", request: Request, take: "Take", places: int, at_once: int | None = None
) -> "Iterator[tuple[int, Completion]]":
    """As `answer`, row by row as each ends: see `engine/scheduler.py`. It is for those whose `rows_join`."""
    from mmcli.engine.scheduler import write_continuously

    rows: Any = {"places": places, "at_once": at_once}
    limits: Any = {"stop_ids": loaded.processor.stop_ids, "max_tokens": request.token_limit}
    try:
        yield from write_continuously(loaded.model, take, sampling=_sampling(request), **rows, **limits)
    except RuntimeError as error:  # it is reading that takes the memory
        raise in_words(error, at_once or places, "picture") from error


def _own_find(loaded: "Loaded", request: Request) -> "Find | None":
    """How the family answers the request in a way of its own, if it does."""
    asks = request.finds_objects and request.prompt is None and request.labels
    return loaded.family.find if asks and loaded.family is not None else None


def _sampling(request: Request) -> "Sampling":
    from mmcli.engine.sampling import Sampling

    return Sampling(request.temperature, request.top_k, request.top_p, request.seed)


def _find(find: "Find", loaded: "Loaded", images: "Sequence[Image.Image]", request: Request) -> "Sequence[Found]":
    """The answers of a family that finds in a way of its own, to a request for objects in one image each."""
    from mmcli.models.finding import FindOptions

    options = FindOptions(
        masks=request.finds_masks,
        sampling=_sampling(request),
        max_tokens=request.token_limit,
        least=request.min_score,
        beams=request.beams_for(loaded),
    )
    try:
        return find(loaded, images, request.labels, options)
    except RuntimeError as error:
        raise in_words(error, len(images), "picture") from error


def in_words(error: RuntimeError, rows: int, what: str) -> Exception:
    """Out of memory, on whatever device, becomes a sentence about so many rows, each one `what`.

    Any other fault of PyTorch stays what it is. Raises KeyboardInterrupt where that is what it came from.
    """
    raise_if_interrupted(error)
    if ran_out_of_memory(error):
        several = f"one {what}" if rows == 1 else f"{rows} {what}s at once"
        remedy = "" if rows == 1 else "--batch-size 1, "
        return MemoryShortage(f"Memory ran out on {several}", f"Try {remedy}--dtype bfloat16, or a smaller model")
    return error
