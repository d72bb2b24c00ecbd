"""From the steps of the decode loop to what each row wrote. It knows no family and no task."""

import time
from collections.abc import Callable, Generator
from contextlib import closing
from typing import Any, TypeVar

from mmcli.engine.beams import beam_search
from mmcli.engine.generate import TokenEvent, generate
from mmcli.engine.inputs import Inputs
from mmcli.engine.model import GenerativeModel
from mmcli.errors import interrupt_taken, keeping_interrupts
from mmcli.types import Completion, Timings

Result = TypeVar("Result")
OnToken = Callable[[int, int], None]  # row and id of every token as it is written, stop tokens left out


def complete(
    model: GenerativeModel,
    inputs: Inputs,
    *,
    stop_ids: frozenset[int],
    max_tokens: int,
    beams: int = 1,
    started: float | None = None,
    on_token: OnToken | None = None,
    **settings: Any,
) -> list[Completion]:
    """What the model writes for each row of `inputs`: by `beam_search` with several `beams`, else by `generate`.

    `settings` are those of the two; for `started` and `on_token` see `collect`. Beam search reports no tokens before
    its end.
    """
    if beams > 1:
        return beam_search(model, inputs, stop_ids=stop_ids, max_tokens=max_tokens, beams=beams, **settings)
    if inputs.search is not None and inputs.search.forced_end:
        max_tokens -= 1  # the place of the end
    steps = generate(model, inputs, stop_ids=stop_ids, max_tokens=max_tokens, **settings)
    return collect(steps, len(inputs.tokens), stop_ids, started=started, on_token=on_token)


def collect(
    steps: Generator[list[TokenEvent]],
    rows: int,
    stop_ids: frozenset[int],
    *,
    started: float | None = None,
    on_token: OnToken | None = None,
    interruptible: bool = False,
) -> list[Completion]:
    """Run the steps of `generate` to their end → what each of the `rows` wrote; the rest as for `collecting`."""
    return drive(collecting(steps, rows, stop_ids, started=started, interruptible=interruptible), on_token)


def drive(writing: Generator[tuple[int, int], None, Result], on_token: OnToken | None = None) -> Result:
    """Run a generator of (row, token) to its end → what it returns. What `on_token` raises is raised in it."""
    try:
        token = next(writing)
        while True:
            try:
                if on_token:
                    on_token(*token)
            except BaseException as error:
                token = writing.throw(error)
            else:
                token = next(writing)
    except StopIteration as end:
        result: Result = end.value
        return result


def collecting(
    steps: Generator[list[TokenEvent]],
    rows: int,
    stop_ids: frozenset[int],
    *,
    started: float | None = None,
    interruptible: bool = False,
) -> Generator[tuple[int, int], None, list[Completion]]:
    """The steps of `generate`: yields row and id of every token but stop tokens → what each of the `rows` wrote.

    `started` (`time.perf_counter`) is when reading began, where that was before this call. If `interruptible`, Ctrl-C
    ends the rows, and what was written by then stays; before the first token it is raised on (KeyboardInterrupt).
    """
    started = time.perf_counter() if started is None else started
    ids: list[list[int]] = [[] for _ in range(rows)]
    logprobs: list[list[float]] = [[] for _ in range(rows)]
    ended, stopped, read = [False] * rows, False, None
    try:
        with keeping_interrupts(), closing(steps):
            for events in steps:
                read = read or time.perf_counter()
                for event in events:
                    logprobs[event.row].append(event.logprob)
                    if event.id in stop_ids:
                        ended[event.row] = True
                        continue
                    ids[event.row].append(event.id)
                    yield event.row, event.id
    except KeyboardInterrupt:
        if not interruptible or not any(ids):
            raise
        stopped = True
        interrupt_taken()
    now = time.perf_counter()
    timings = Timings((read or now) - started, now - (read or now), rows)
    return [
        Completion(tuple(own), tuple(values), done, timings, stopped)
        for own, values, done in zip(ids, logprobs, ended, strict=True)
    ]
