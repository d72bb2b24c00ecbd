"""Measure the fused kernels one by one on a CUDA device, against their plain roads: µs, and GB/s of what must be read.

    python tests/bench/kernel_rates.py            every kernel on the shapes of the published decoders
    python tests/bench/kernel_rates.py --tiles    the skinny product with other tiles too, to choose among them

Each is recorded in a graph that goes through as many weights as the cache of the device cannot hold.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import Tensor  # noqa: E402

from mmcli.layers.attention import additive  # noqa: E402
from mmcli.layers.kernels import gated_gelu, matvec, residual_norm, single_query  # noqa: E402
from mmcli.layers.rope import rotary_angles  # noqa: E402

CACHED = 256 << 20  # bytes of weights that no cache holds
# Weight shapes [N, K] of a step, whether the product is gated: PaliGemma 3B, PaliGemma 2 3B, Gemma 3n E4B.
SHAPES = (
    ("3b qkv", 2560, 2048, False), ("3b out", 2048, 2048, False), ("3b gate up", 32768, 2048, True),
    ("3b down", 2048, 16384, False), ("3b head", 257216, 2048, False),
    ("3b-2 qkv", 4096, 2304, False), ("3b-2 out", 2304, 2048, False), ("3b-2 gate up", 18432, 2304, True),
    ("3b-2 down", 2304, 9216, False),
    ("e4b qkv", 3072, 2048, False), ("e4b laurel", 64, 2048, False), ("e4b per layer", 256, 2048, False),
    ("e4b per layer out", 2048, 256, False),
)  # fmt: skip
TILES = (
    (1, 512, 4), (1, 1024, 4), (1, 2048, 4), (1, 2048, 8), (2, 512, 4), (2, 1024, 4), (2, 1024, 8), (2, 2048, 8),
    (4, 256, 2), (4, 256, 4), (4, 512, 4), (4, 1024, 8), (8, 256, 4), (8, 512, 8),
)  # fmt: skip
TRIED = ("3b qkv", "3b gate up", "3b down", "3b head", "3b-2 gate up", "3b-2 down", "e4b qkv")


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


def library(x: Tensor, gated: bool, weight: Tensor) -> Tensor:
    y = F.linear(x, weight)
    return gated_gelu.gated_gelu(y) if gated else y


def products(with_tiles: bool) -> None:
    for name, outputs, inputs, gated in SHAPES:
        size = outputs * inputs * 2
        count = max(4, min(64, CACHED // size + 1))
        weights = [torch.randn(outputs, inputs, device="cuda", dtype=torch.bfloat16) for _ in range(count)]
        scale = torch.randn(inputs, device="cuda")

        def rate(call: Callable[[Tensor], object], weights: list[Tensor] = weights, size: int = size) -> float:
            return size / seconds([partial(call, weight) for weight in weights]) / 1e9

        for rows in (1, 4):
            x = torch.randn(rows, inputs, device="cuda", dtype=torch.bfloat16)
            own = partial(matvec.matvec, x, gated=gated)
            normed = rate(partial(own, norm=scale, epsilon=1e-6))
            line = f"{name:18} rows {rows}: library {rate(partial(library, x, gated)):.0f} GB/s, "
            line += f"ours {rate(own):.0f}, with the norm {normed:.0f}"
            if with_tiles and rows == 1 and name in TRIED:
                found = [(rate(partial(own, cut=matvec.Tiles(*cut))), cut) for cut in TILES]
                line += "; " + ", ".join(f"{speed:.0f} {cut}" for speed, cut in sorted(found, reverse=True))
            print(line, flush=True)
        del weights


def attention() -> None:
    bfloat16, device = torch.bfloat16, torch.device("cuda")
    for name, heads, key_heads, softcap in (("3b", 8, 1, None), ("3b-2", 8, 4, 50.0), ("e4b", 8, 2, None)):
        for rows, length in ((1, 384), (1, 5000), (4, 384), (32, 384), (32, 1200)):
            caches = [torch.randn(2, rows, key_heads, length, 256, device=device, dtype=bfloat16) for _ in range(8)]
            qkv = torch.randn(rows, (heads + 2 * key_heads) * 256, device=device, dtype=bfloat16)
            cursor = torch.tensor([length - 1], device=device)
            cos, sin = rotary_angles(cursor[:, None].expand(rows, 1), 256, 1e4)
            bias = additive(torch.ones(rows, 1, 1, length, dtype=torch.bool, device=device), bfloat16)
            rest = (cos.to(bfloat16), sin.to(bfloat16)), bias, cursor, 0.0625, softcap
            rates = []
            for call in (single_query.plain, single_query.single_query):
                time = seconds([partial(call, qkv, *cache, *rest) for cache in caches])
                rates.append(f"{time * 1e6:.1f} µs ({caches[0].nbytes / time / 1e9:.0f} GB/s)")
            print(f"attention {name:5} rows {rows}, length {length}: plain {rates[0]}, ours {rates[1]}", flush=True)


def small() -> None:
    for rows in (1, 16, 32):
        x, y = (torch.randn(rows, 2304, device="cuda", dtype=torch.bfloat16) for _ in range(2))
        inner, outer = torch.randn(2, 2304, device="cuda")
        for scale in (None, inner):
            roads = residual_norm.plain, residual_norm.residual_norm
            plain, own = (seconds([partial(call, x, y, scale, outer, 1e-6)] * 20) * 1e6 for call in roads)
            kind = "addition and norm" if scale is None else "norm, addition and norm"
            print(f"{kind}, rows {rows}: plain {plain:.1f} µs, ours {own:.1f} µs", flush=True)
        gates = torch.randn(rows, 32768, device="cuda", dtype=torch.bfloat16)
        activations = gated_gelu.plain, gated_gelu.gated_gelu
        plain, own = (seconds([partial(call, gates)] * 20) * 1e6 for call in activations)
        print(f"gated gelu, rows {rows}: plain {plain:.1f} µs, ours {own:.1f} µs", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", action="store_true")
    given = parser.parse_args()
    with torch.inference_mode():
        small()
        attention()
        products(given.tiles)
