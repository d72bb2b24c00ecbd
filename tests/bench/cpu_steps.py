"""Measure one decode step on the CPU beside the rate at which its memory is read.

    python tests/bench/cpu_steps.py --make 3b --quantize none int8 int4 --threads 2 8

One row is written behind an image and a prompt. What a step must read are the weights of all layers and the head, in
the form in which they are kept; the memory's rate is that of reading (a sum) and of a copy, with the same threads, the
best of ten. `--profile` lists the operations of a step.
"""

import argparse
import os
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent)]

from mmcli.engine.cpu import settle_threads  # noqa: E402

settle_threads(os.environ)

import torch  # noqa: E402
from sides import Mmcli  # noqa: E402
from startup import named_or_made  # noqa: E402
from worker import copy_rate, random_images  # noqa: E402

from mmcli.engine.device import choose_dtype  # noqa: E402
from mmcli.engine.memory import use_huge_pages  # noqa: E402
from mmcli.hub.resolve import resolve  # noqa: E402
from mmcli.layers.weight_only import InIntegers, keep_in  # noqa: E402
from mmcli.models.load import build_empty, parts_in_integers, storage_of  # noqa: E402
from mmcli.models.registry import family_of  # noqa: E402

CPU = torch.device("cpu")
READ = 1 << 30  # bytes


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--make", help="a random checkpoint of this size instead (see run.py)")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--quantize", nargs="+", default=["none"], choices=["none", "int8", "int4"])
    parser.add_argument("--threads", type=int, nargs="+", default=[torch.get_num_threads()])
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--profile", type=int, default=0, help="operations to list")
    return parser.parse_args()


def read_rate() -> float:
    """Bytes a second of a sum over memory in large pages: the best of ten."""
    numbers = torch.empty(READ // 4, dtype=torch.int32)
    use_huge_pages(numbers.data_ptr(), numbers.nbytes)
    numbers.zero_()
    times = []
    for _ in range(10):
        start = time.perf_counter()
        numbers.view(torch.float32).sum()
        times.append(time.perf_counter() - start)
    return READ / min(times)


def read_by_step(checkpoint: Any, dtype: torch.dtype, quantize: str) -> float:
    """Bytes of weights that one written token reads: every layer, and the head, which may be the table of tokens."""
    family = family_of(checkpoint.config, checkpoint.name)
    model = build_empty(family, family.read_config(checkpoint.config))
    storage = storage_of(checkpoint, quantize)
    if storage is not None:
        keep_in(storage, *parts_in_integers(model))
    part: Any = model.get_submodule("decoder")
    bits = {f"{name}.weight": own.bits for name, own in part.named_modules() if isinstance(own, InIntegers)}
    weights = dict(part.named_parameters())
    if getattr(part, "head", None) is not None:  # one of its own: of the table one row is read
        weights = {name: weight for name, weight in weights.items() if not name.startswith("embedding.")}
    return sum(weight.numel() * bits.get(name, 8 * dtype.itemsize) / 8 for name, weight in weights.items())


def steps(model: Any, inputs: Any, tokens: int) -> list[float]:
    """Seconds of each step."""
    from mmcli.engine.generate import generate

    times = []
    events = generate(model, inputs, stop_ids=frozenset(), max_tokens=tokens)
    next(events)
    last = time.perf_counter()
    for _ in events:
        now = time.perf_counter()
        times.append(now - last)
        last = now
    return times


def main() -> None:
    given = options()
    with named_or_made(given.model, given.make) as name:
        checkpoint = resolve(name)
        family = family_of(checkpoint.config, checkpoint.name)
        processor = family.processor(checkpoint.folder, family.read_config(checkpoint.config), checkpoint.config)
        inputs = processor.inputs(random_images(1), [processor.task_prompt("caption", "")])
        rates = {}
        for threads in given.threads:
            torch.set_num_threads(threads)
            rates[threads] = read_rate(), copy_rate(CPU)
            print(
                f"{threads} threads: memory is read at {rates[threads][0] / 1e9:.1f} GB/s, "
                f"copied at {rates[threads][1] / 1e9:.1f} GB/s",
                flush=True,
            )
        for quantize in given.quantize:
            side = Mmcli()
            dtype = choose_dtype(given.dtype, CPU, 1 << 40)
            start = time.perf_counter()
            arithmetic = side.load(checkpoint, CPU, dtype, "auto", False, quantize)
            print(f"{arithmetic}: loaded in {time.perf_counter() - start:.0f} s", flush=True)
            size = read_by_step(checkpoint, dtype, quantize)
            for threads in given.threads:
                torch.set_num_threads(threads)
                with torch.inference_mode():
                    steps(side.model, inputs, 3)
                    took = median(steps(side.model, inputs, given.tokens))
                read, copied = rates[threads]
                print(
                    f"{arithmetic}, {threads} threads: a step reads {size / 1e9:.2f} GB in {1e3 * took:.1f} ms, "
                    f"{1 / took:.1f} tokens/s, {size / took / 1e9:.1f} GB/s: {size / took / read:.0%} of reading, "
                    f"{size / took / copied:.0%} of copying",
                    flush=True,
                )
                if given.profile:
                    print(profile(side.model, inputs, given.profile), flush=True)
            del side


def profile(model: Any, inputs: Any, count: int, tokens: int = 6) -> str:
    """The operations of steps by their own time."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    from mmcli.engine.generate import generate

    with torch.inference_mode():
        events = generate(model, inputs, stop_ids=frozenset(), max_tokens=tokens)
        next(events)
        with record(activities=[ProfilerActivity.CPU]) as seen:
            for _ in events:
                pass
    own = sorted(seen.key_averages(), key=lambda event: -event.self_cpu_time_total)[:count]
    return "\n".join(
        f"    {event.self_cpu_time_total / (tokens - 1) / 1e3:8.2f} ms  {event.count // (tokens - 1):5} × {event.key}"
        for event in own
    )


if __name__ == "__main__":
    main()
