"""One side, measured in a process of its own, so that neither memory nor caches leak into the next measurement.

    python tests/bench/worker.py '{"side": "mmcli", "model": "nano", …}'

Prints one JSON line: for each batch seconds, tokens a second, and peak memory of this process.
"""

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parents[2] / "examples"


def random_images(count: int) -> list[list[Any]]:
    """Rows of one example photograph each."""
    from PIL import Image

    files = sorted(EXAMPLES.glob("*.jpg"))
    return [[Image.open(files[i % len(files)]).convert("RGB")] for i in range(count)]


def copy_rate(device: Any) -> float:
    """Bytes a second that a copy within the device's memory moves, reading and writing: the best of ten."""
    import torch
    from sides import finished

    size = (1 << 30) if device.type == "cuda" else (1 << 28)
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times = []
    for _ in range(12):
        start = finished(device)
        target.copy_(source)
        times.append(finished(device) - start)
    return 2 * size / min(times[2:])


def peak_memory(device: Any) -> int:
    """Bytes at the worst moment: of the device's own memory on CUDA, else of this process."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def forget_peak(device: Any) -> None:
    """Count peak memory from here on, where that can be."""
    import torch

    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def measure(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Import and load once, then measure every batch in turn → a result for each; only the first has a cold start."""
    import torch

    if spec["threads"]:
        torch.set_num_threads(spec["threads"])
    from sides import SIDES, finished

    start = time.perf_counter()
    side = SIDES[spec["side"]]()
    imported = time.perf_counter() - start
    from mmcli.engine.device import choose_device, choose_dtype
    from mmcli.hub.quantized import parameter_count
    from mmcli.hub.resolve import resolve
    from mmcli.models.registry import family_of

    checkpoint = resolve(spec["model"])
    device = choose_device(spec["device"])
    dtype = choose_dtype(spec["dtype"], device, parameter_count(checkpoint.folder))
    if device.type == "cuda":
        torch.zeros(1, device=device)  # the driver's own start is nobody's merit
    start = finished(device)
    arithmetic = side.load(checkpoint, device, dtype, spec["table"], spec["dtype"] == "auto")
    loaded = finished(device) - start

    family = family_of(checkpoint.config, checkpoint.name)
    config = family.read_config(checkpoint.config)
    processor = family.processor(checkpoint.folder, config, checkpoint.config)
    same = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "dtype": arithmetic,
        "threads": torch.get_num_threads(),
        "kind": device.type,
    }
    results = []
    for batch in spec["batch"]:
        inputs = processor.inputs(random_images(batch), [processor.task_prompt("caption", "")] * batch)
        results.append(measure_batch(side, spec, inputs, device) | same)
        forget_peak(device)
    results[0] |= {"import": imported, "load": loaded, "cold": loaded + results[0]["first"]}
    if spec["side"] == "mmcli":  # after the peaks were read
        same = {"read": side.read_each_token(), "copy": copy_rate(device)}
        results = [result | same for result in results]
    return results


def measure_batch(side: Any, spec: dict[str, Any], inputs: Any, device: Any) -> dict[str, Any]:
    """Answer to warm up and then `repeats` times; medians of the latter."""
    import torch

    tokens, batch = spec["tokens"], len(inputs.tokens)
    with torch.inference_mode():
        first = side.warm_up(inputs, tokens)
        spent = time.process_time()
        runs = [side.answer(inputs, tokens) for _ in range(spec["repeats"])]
        spent = (time.process_time() - spent) / len(runs)
    result = {
        "first": first,
        "prefill": statistics.median(run[0] for run in runs),
        "rate": statistics.median(batch * (tokens - 1) / run[1] for run in runs),
        "whole": statistics.median(run[0] + run[1] for run in runs),
        "processor": spent,
        "memory": peak_memory(device),
        "ids": runs[-1][2],
        "prefix": inputs.tokens.shape[1],
    }
    if spec["side"] == "mmcli" and device.type == "cuda":  # after the peak was read
        result["waits"] = side.waits(inputs, tokens)
    return result


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]))))
