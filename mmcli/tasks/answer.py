"""From pictures and a request to the model's answer; the only part of the tasks that runs the engine."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmcli.decode import Token
from mmcli.errors import MemoryShortage, ran_out_of_memory
from mmcli.tasks.task import Request

if TYPE_CHECKING:
    from PIL import Image

    from mmcli.hub.load import Loaded
    from mmcli.models.family import Found


@dataclass(frozen=True)
class Answer:
    """One row's tokens without the stop token, and the seconds that its whole batch took."""

    tokens: tuple[Token, ...]
    truncated: bool  # the model had not finished: it was cut off by the token limit, or stopped
    prefill: float  # seconds to read the batch's pictures and prompts
    decode: float  # seconds to write the batch's tokens
    batch: int  # rows that shared those seconds
    stopped: bool = False  # by whoever reads it: there might have been more
    found: "Found | None" = None  # where the family finds in a way of its own; else the tokens are read for objects

    @property
    def ids(self) -> list[int]:
        return [token.id for token in self.tokens]


def answer(
    loaded: "Loaded",
    pictures: "Sequence[Sequence[Image.Image]]",
    request: Request,
    on_token: Callable[[int, int], None] | None = None,
) -> list[Answer]:
    """Ask the model about each row of pictures; `on_token(row, id)` hears every token as it is written.

    Raises ModelError where the model cannot take the rows, or where memory runs out.
    """
    from mmcli.engine.generate import generate
    from mmcli.engine.sampling import Sampling

    if request.finds_objects and request.prompt is None and loaded.family is not None and loaded.family.find:
        return _find(loaded, [picture for own in pictures for picture in own], request)
    processor = loaded.processor
    stop_ids = processor.stop_ids
    sampling = Sampling(request.temperature, request.top_k, request.top_p, request.seed)
    rows: list[list[Token]] = [[] for _ in pictures]
    stopped = [False] * len(rows)
    started = time.perf_counter()
    read = None
    try:
        inputs = processor.inputs(pictures, [request.prompt_for(processor)] * len(rows))
        steps = generate(loaded.model, inputs, stop_ids=stop_ids, max_tokens=request.token_limit, sampling=sampling)
        for events in steps:
            read = read or time.perf_counter()
            for event in events:
                if event.id in stop_ids:
                    stopped[event.row] = True
                    continue
                rows[event.row].append(Token(event.id, event.logprob))
                if on_token:
                    on_token(event.row, event.id)
    except RuntimeError as error:
        raise in_words(error, len(rows), "picture") from error
    ended = time.perf_counter()
    read = read or ended
    return [
        Answer(tuple(tokens), not done, read - started, ended - read, len(rows))
        for tokens, done in zip(rows, stopped, strict=True)
    ]


def _find(loaded: "Loaded", pictures: "Sequence[Image.Image]", request: Request) -> list[Answer]:
    """The answers of a family that finds in a way of its own, to a request for things in one picture each."""
    from mmcli.engine.sampling import Sampling

    sampling = Sampling(request.temperature, request.top_k, request.top_p, request.seed)
    settings = {"masks": request.finds_masks, "sampling": sampling, "max_tokens": request.token_limit}
    settings["least"] = request.min_score
    started = time.perf_counter()
    try:
        every = loaded.family.find(loaded, pictures, request.things, **settings)
    except RuntimeError as error:
        raise in_words(error, len(pictures), "picture") from error
    seconds = time.perf_counter() - started
    return [
        Answer(found.tokens, found.truncated, found.prefill, seconds - found.prefill, len(every), found=found)
        for found in every
    ]


def in_words(error: RuntimeError, rows: int, what: str) -> Exception:
    """Out of memory, on whatever device, becomes a sentence about so many rows, each one `what`.

    Any other fault of PyTorch stays what it is.
    """
    if ran_out_of_memory(error):
        several = f"one {what}" if rows == 1 else f"{rows} {what}s at once"
        remedy = "" if rows == 1 else "--batch-size 1, "
        return MemoryShortage(f"Memory ran out on {several}", f"Try {remedy}--dtype bfloat16, or a smaller model")
    return error
