"""Measure one decode step on a CUDA device, with the fused kernels and without, and show where its time goes.

    python tests/bench/steps.py --make 3b --batch 1 32
    python tests/bench/steps.py --model google/paligemma2-3b-mix-448 --profile 25

Both paths run in one process on the same weights, in turn. A step is the graph played back; tokens/s are those of a
whole answer, its host's part included.
"""

import argparse
import os
import sys
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent)]

import torch  # noqa: E402
from sides import Mmcli  # noqa: E402
from startup import named_or_made  # noqa: E402
from worker import copy_rate, random_images  # noqa: E402

from mmcli.engine import cuda_graph  # noqa: E402
from mmcli.engine.device import choose_device, choose_dtype  # noqa: E402
from mmcli.hub.resolve import resolve  # noqa: E402
from mmcli.layers import kernels  # noqa: E402
from mmcli.layers.kernels import launch  # noqa: E402
from mmcli.models.registry import family_of  # noqa: E402

# What is set in the environment for each; `serial`: every kernel waits for the end of the one before it.
PATHS = {
    "plain": {kernels.SWITCH: "0"},
    "kernels": {kernels.SWITCH: "1", launch.SWITCH: "1"},
    "serial": {kernels.SWITCH: "1", launch.SWITCH: "0"},
}


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--make", help="a random checkpoint of this size instead (see run.py)")
    parser.add_argument("--batch", type=int, nargs="+", default=[1])
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--table", default="auto", help="where Gemma 3n's per-layer table is: cpu or device")
    parser.add_argument("--quantize", default="none", help="int8 or int4: the decoder's weights in integers")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", type=int, default=0, help="kernels to list, by their time in one step")
    parser.add_argument("--paths", nargs="+", choices=PATHS, default=["plain", "kernels"])
    return parser.parse_args()


def replay_time(graph: Any, times: int = 50) -> float:
    """Seconds of one step: the median over groups of ten."""
    groups = []
    for _ in range(times // 10):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(10):
            graph._graph.replay()
        end.record()
        end.synchronize()
        groups.append(start.elapsed_time(end) / 1e4)
    return median(groups)


def profile(graph: Any, count: int) -> str:
    """The kernels of one step by their time."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    with record(activities=[ProfilerActivity.CUDA]) as seen:
        graph._graph.replay()
        torch.cuda.synchronize()
    spent: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for event in seen.events():
        if event.device_type == DeviceType.CUDA:
            spent[event.name] += event.time_range.elapsed_us()
            calls[event.name] += 1
    total = sum(spent.values())
    lines = [f"  {sum(calls.values())} kernels, {total / 1000:.3f} ms within them"]
    for name, spell in spent.most_common(count):
        lines.append(f"  {spell:9.1f} µs {spell / total:5.1%} {calls[name]:5d} × {name[:120]}")
    return "\n".join(lines)


def measure(side: Mmcli, inputs: Any, path: str, given: argparse.Namespace) -> tuple[float, float, list[list[int]]]:
    """(seconds a step, tokens a second, ids); the profile is printed."""
    os.environ.update(PATHS[path])
    cuda_graph._spare.clear()
    used: list[Any] = []
    give_back, cuda_graph.give_back = cuda_graph.give_back, lambda model, cache: used.append(cache)
    with torch.inference_mode():
        start = time.perf_counter()
        side.answer(inputs, given.tokens)
        print(f"{path}: the first answer took {time.perf_counter() - start:.2f} s", flush=True)
        cuda_graph.give_back = give_back
        runs = [side.answer(inputs, given.tokens) for _ in range(3)][1:]  # the first one records
        cuda_graph.give_back = lambda model, cache: used.append(cache)
        side.answer(inputs, given.tokens)
    cuda_graph.give_back = give_back
    graph = used[-1].graph
    step = replay_time(graph)
    if given.profile:
        print(profile(graph, given.profile), flush=True)
    rate = median(len(inputs.tokens) * (given.tokens - 1) / run[1] for run in runs)
    return step, rate, runs[-1][2]


def main() -> None:
    given, device = options(), choose_device("cuda")
    with named_or_made(given.model, given.make) as name:
        checkpoint = resolve(name)
        side = Mmcli()
        kind = side.load(
            checkpoint, device, choose_dtype(given.dtype, device, None), given.table, False, given.quantize
        )
        family = family_of(checkpoint.config, checkpoint.name)
        processor = family.processor(checkpoint.folder, family.read_config(checkpoint.config), checkpoint.config)
    copy, read = copy_rate(device), side.read_each_token()
    print(
        f"{given.make or given.model} on {torch.cuda.get_device_name()} in {kind}: a copy moves {copy / 1e9:.0f} GB/s,"
    )
    print(f"a step reads {read / 1e9:.3f} GB of weights: at the least {1000 * read / copy:.3f} ms", flush=True)
    for batch in given.batch:
        inputs = processor.inputs(random_images(batch), [processor.task_prompt("caption", "")] * batch)
        answers = {}
        for turn in range(given.rounds):
            for path in given.paths:
                shown = argparse.Namespace(**vars(given) | {"profile": given.profile if turn == 0 else 0})
                step, rate, answers[path] = measure(side, inputs, path, shown)
                print(
                    f"batch {batch}, {path:7}: a step {1000 * step:.3f} ms, "
                    f"{rate:.1f} tokens/s, {read / step / copy:.1%} of the copy rate",
                    flush=True,
                )
        first = answers[given.paths[0]]
        for path in given.paths[1:]:
            alike = [sum(a == b for a, b in zip(*pair, strict=True)) for pair in zip(first, answers[path], strict=True)]
            counts = f"{min(alike)} … {max(alike)} of {given.tokens} places"
            print(f"batch {batch}: {path} and {given.paths[0]} write the same at {counts}", flush=True)


if __name__ == "__main__":
    main()
