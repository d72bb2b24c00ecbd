"""Measure a folder of photographs whose answers have unlike lengths, beside one whose answers have the same.

    python tests/bench/folder.py --make 3b --batch 16 32

Random weights never end an answer, so lengths are given: drawn evenly from `--tokens`, or all of their mean. `rows` is
what mmcli does, where a row begins as soon as another ends; `batches` waits for the longest of each batch.
"""

import argparse
import os
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent)]

from mmcli.engine.cpu import settle_threads  # noqa: E402

settle_threads(os.environ)  # as the command does
import torch  # noqa: E402
from startup import named_or_made  # noqa: E402
from worker import EXAMPLES  # noqa: E402

from mmcli.batch.images import run  # noqa: E402
from mmcli.engine import collect, cuda_graph, scheduler  # noqa: E402
from mmcli.engine.generate import Reading, generate  # noqa: E402
from mmcli.hub.resolve import resolve  # noqa: E402
from mmcli.media.sources import IMAGE_EXTENSIONS, expand  # noqa: E402
from mmcli.models.load import load  # noqa: E402
from mmcli.tasks.caption import CaptionRequest  # noqa: E402


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--make", help="a random checkpoint of this size instead (see run.py)")
    parser.add_argument("--batch", type=int, nargs="+", default=[16])
    parser.add_argument("--photographs", type=int, default=512)
    parser.add_argument("--tokens", type=int, nargs=2, default=[4, 200], help="of the shortest and the longest answer")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--paths", nargs="+", choices=["rows", "batches"], default=["rows", "batches"])
    return parser.parse_args()


class Spent:
    """Steps, rows in them, and seconds of the host within parts of the scheduler."""

    def __init__(self) -> None:
        self.steps = self.rows = self.joins = 0
        self.seconds = {"prefill": 0.0, "waiting for the device": 0.0, "taking": 0.0, "reading a photograph": 0.0}

    @contextmanager
    def on(self, part: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[part] += time.perf_counter() - start


@contextmanager
def lengths_given(lengths: list[int], end: int) -> Iterator[Spent]:
    """Both paths end row i with the token `end` behind as many tokens as `lengths` say."""
    spent, batch, answered = Spent(), scheduler._Batch, 0

    class Timed(batch):  # type: ignore[misc, valid-type]
        def _read(self, reading: Reading, cache: Any) -> Any:
            own = reading.events

            def events(rows: list[int], running: set[int]) -> Any:
                with spent.on("waiting for the device"):
                    found = own(rows, running)
                spent.steps, spent.rows = spent.steps + 1, spent.rows + len(found)
                done = [len(self.rows[e.row].ids) + 1 >= lengths[self.rows[e.row].number] for e in found]
                return [replace(e, id=end) if over else e for e, over in zip(found, done, strict=True)]

            reading.events = events  # type: ignore[method-assign]
            return super()._read(reading, cache)

    def limited(model: Any, inputs: Any, **settings: Any) -> Any:
        nonlocal answered
        own = lengths[answered : answered + len(inputs.tokens)]
        answered += len(own)
        return generate(model, inputs, limits=own, **settings)

    prefill, before, write = cuda_graph.prefill, collect.generate, scheduler.write_continuously

    def taking(model: Any, take: Any, **settings: Any) -> Any:
        def timed(count: int, wait: bool) -> Any:
            with spent.on("taking"):
                return take(count, wait)

        return write(model, timed, **settings)

    def counted(*given: Any) -> Any:
        spent.joins += 1
        with spent.on("prefill"):
            return prefill(*given)

    scheduler._Batch, cuda_graph.prefill, collect.generate = Timed, counted, limited
    scheduler.write_continuously = taking
    yield spent
    scheduler._Batch, cuda_graph.prefill, collect.generate = batch, prefill, before
    scheduler.write_continuously = write


def measure(loaded: Any, path: str, lengths: list[int], size: int) -> tuple[float, Spent]:
    """Photographs a second."""
    files = sorted(EXAMPLES.glob("*.jpg"))
    sources = expand([str(files[i % len(files)]) for i in range(len(lengths))], extensions=IMAGE_EXTENSIONS)
    end = min(loaded.processor.stop_ids)
    request = CaptionRequest(max_tokens=max(lengths), beams=1)
    loaded.model.rows_join = path == "rows"
    with lengths_given(lengths, end) as spent:
        start = time.perf_counter()
        outcomes = run(sources, request, lambda: loaded, model="bench", batch_size=size)
        read = [outcome.record.timings["load"] for outcome in outcomes]
        seconds = time.perf_counter() - start
    assert len(read) == len(lengths)
    spent.seconds["reading a photograph"] = median(read)
    return len(read) / seconds, spent


def main() -> None:
    given = options()
    with named_or_made(given.model, given.make) as name:
        loaded = load(resolve(name), given.device, given.dtype)
    loaded.processor.stop_ids = frozenset({min(loaded.processor.stop_ids)})
    device = torch.cuda.get_device_name() if loaded.device.type == "cuda" else "the CPU"
    print(f"{given.make or given.model} on {device} in {loaded.dtype}, {os.cpu_count()} cores", flush=True)
    draw = random.Random(0)
    unlike = [draw.randint(*given.tokens) for _ in range(given.photographs)]
    equal = [round(sum(unlike) / len(unlike))] * len(unlike)
    for size in given.batch:
        for lengths in (equal, unlike):  # records and compiles, for caches of both lengths
            measure(loaded, "rows", lengths[: 2 * size], size)
        rates = {}
        for path in given.paths:
            for kind, lengths in (("equal", equal), ("unlike", unlike)):
                rate, spent = measure(loaded, path, lengths, size)
                rates[kind] = rate
                line = f"batch {size}, {path:7}, {kind:6}: {rate:6.1f} photographs/s, {rate * equal[0]:7.0f} tokens/s"
                if spent.steps:
                    parts = ", ".join(f"{value:.3f} s {part}" for part, value in spent.seconds.items())
                    line += (
                        f"; {spent.joins} prefills, {spent.steps} steps of {spent.rows / spent.steps:.1f} rows; {parts}"
                    )
                print(line, flush=True)
            print(
                f"batch {size}, {path}: answers of unlike length at {rates['unlike'] / rates['equal']:.0%}", flush=True
            )


if __name__ == "__main__":
    main()
