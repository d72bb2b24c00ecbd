"""Measure the fused kernels one by one on a CUDA device, beside plain PyTorch: µs, and GB/s of what must be read.

    python tests/bench/kernel_rates.py            every kernel on the shapes of the published decoders
    python tests/bench/kernel_rates.py --tries    the product and attention cut in other ways too, to choose among them

Each is recorded in a graph that goes through as many weights as the cache of the device cannot hold.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import Tensor  # noqa: E402

from mmcli.layers.attention import additive  # noqa: E402
from mmcli.layers.kernels import few_rows, gated, matvec, residual_norm, single_query  # noqa: E402
from mmcli.layers.rope import rotary_angles  # noqa: E402

CACHED = 256 << 20  # bytes of weights that no cache holds
# Weight shapes [N, K] of a step: PaliGemma 3B, PaliGemma 2 3B, Gemma 3n E4B.
SHAPES = (
    ("3b qkv", 2560, 2048), ("3b out", 2048, 2048), ("3b gate up", 32768, 2048), ("3b down", 2048, 16384),
    ("3b head", 257216, 2048), ("3b-2 qkv", 4096, 2304), ("3b-2 out", 2304, 2048), ("3b-2 gate up", 18432, 2304),
    ("3b-2 down", 2304, 9216), ("e4b qkv", 3072, 2048), ("e4b laurel left", 64, 2048), ("e4b laurel right", 2048, 64),
    ("e4b per layer", 256, 2048), ("e4b per layer out", 2048, 256),
)  # fmt: skip
TILES = ((1024, 2048), (1024, 4096), (1024, 1024), (512, 2048), (512, 1024), (256, 1024), (2048, 4096), (2048, 2048))
# Outputs of a program, inputs of a tile, inputs read ahead, warps, tiles, programs (`few_rows.Cut`).
ROWS_CUTS = (
    (64, 128, 128, 4, 5, 132), (64, 128, 0, 4, 8, 132), (64, 128, 128, 4, 3, 264), (64, 64, 128, 4, 4, 132),
    (128, 64, 128, 4, 3, 132), (64, 128, 0, 4, 4, 132), (128, 64, 0, 4, 5, 132),
)  # fmt: skip
CUTS = ((128, 256, 2), (64, 256, 2), (64, 256, 3), (64, 512, 2), (128, 512, 2), (32, 512, 2), (64, 128, 3))


def seconds(calls: list[Callable[[], object]]) -> float:
    """Of one call: all are recorded in one graph, which is played back."""
    aside = torch.cuda.Stream()
    with torch.cuda.stream(aside):
        calls[0]()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    times = []
    for _ in range(6):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1000 / len(calls))
    return median(times[1:])


def products(tries: bool) -> None:
    for name, outputs, inputs in SHAPES:
        size = outputs * inputs * 2
        count = max(4, min(64, CACHED // size + 1))
        weights = [torch.randn(outputs, inputs, device="cuda", dtype=torch.bfloat16) for _ in range(count)]
        for rows in (1, 2, 8, 16, 32):
            x = torch.randn(rows, inputs, device="cuda", dtype=torch.bfloat16)

            def rate(call: Callable[..., object], weights: list[Tensor] = weights, x: Tensor = x) -> str:
                return f"{weights[0].nbytes / seconds([partial(call, x, weight) for weight in weights]) / 1e9:.0f}"

            line = f"{name:18}, rows {rows:2}: library {rate(F.linear)} GB/s, ours {rate(matvec.by_weight)}"
            for tile in TILES if tries and rows == 1 else ():
                with set_to(matvec, TILE=tile, LONG_TILE=tile, SHORT_TILES=((1 << 31, tile),)):
                    line += f", {tile} {rate(matvec.matvec)}"
            for cut in ROWS_CUTS if tries and rows > 1 else ():
                line += f", {cut} {rate(partial(few_rows.product, cut=few_rows.Cut(*cut)))}"
            print(line, flush=True)
        del weights


def attention(tries: bool) -> None:
    bfloat16, device = torch.bfloat16, torch.device("cuda")
    for name, heads, key_heads, softcap in (("3b", 8, 1, None), ("3b-2", 8, 4, 50.0), ("e4b", 8, 2, None)):
        for rows, length in ((1, 384), (1, 5000), (4, 384), (32, 384), (32, 1200)):
            caches = [torch.randn(2, rows, key_heads, length, 256, device=device, dtype=bfloat16) for _ in range(8)]
            qkv = torch.randn(rows, (heads + 2 * key_heads) * 256, device=device, dtype=bfloat16)
            cursor = torch.tensor([length - 1], device=device)
            cos, sin = rotary_angles(cursor[:, None].expand(rows, 1), 256, 1e4)
            bias = additive(torch.ones(rows, 1, 1, length, dtype=torch.bool, device=device), bfloat16)
            rest = (cos.to(bfloat16), sin.to(bfloat16)), bias, cursor, 0.0625, softcap

            def time(
                call: Callable[..., object], qkv: Tensor = qkv, caches: list[Tensor] = caches, rest: tuple = rest
            ) -> float:
                return seconds([partial(call, qkv, *cache, *rest) for cache in caches])

            line = f"attention {name:5} rows {rows}, length {length}:"
            for path, call in (("plain", single_query.plain), ("ours", single_query.single_query)):
                spent = time(call)
                line += f" {path} {spent * 1e6:.1f} µs ({caches[0].nbytes / spent / 1e9:.0f} GB/s)"
            for cut in CUTS if tries else ():
                with set_to(single_query, KEYS=cut[0], PROGRAMS=cut[1] * 256, STAGES=cut[2]):
                    line += f", {cut} {time(single_query.single_query) * 1e6:.1f}"
            print(line, flush=True)


def small() -> None:
    for rows in (1, 16, 32):
        x, y = (torch.randn(rows, 2304, device="cuda", dtype=torch.bfloat16) for _ in range(2))
        inner, outer = torch.randn(2, 2304, device="cuda")
        for scale in (None, inner):
            paths = residual_norm.plain, residual_norm.residual_norm
            plain, own = (seconds([partial(call, x, y, scale, outer, 1e-6)] * 20) * 1e6 for call in paths)
            kind = "addition and norm" if scale is None else "norm, addition and norm"
            print(f"{kind}, rows {rows}: plain {plain:.1f} µs, ours {own:.1f} µs", flush=True)
        gates = torch.randn(rows, 32768, device="cuda", dtype=torch.bfloat16)
        activations = gated.plain, gated.gated
        plain, own = (seconds([partial(call, gates, "gelu")] * 20) * 1e6 for call in activations)
        print(f"gated gelu, rows {rows}: plain {plain:.1f} µs, ours {own:.1f} µs", flush=True)


@contextmanager
def set_to(module: object, **constants: object) -> Iterator[None]:
    before = {name: getattr(module, name) for name in constants}
    for name, value in constants.items():
        setattr(module, name, value)
    yield
    for name, value in before.items():
        setattr(module, name, value)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", action="store_true")
    given = parser.parse_args()
    with torch.inference_mode():
        small()
        attention(given.tries)
        products(given.tries)
