"""Attention of one new token a row to keys and values that an encoder made, where no two queries share a key head.

Programs ask for their piece of them before there is a query; a second kernel joins the pieces, as in `single_query.py`.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from mmcli.layers.kernels.launch import overlap
from mmcli.layers.kernels.single_query import join_pieces

NUMBERS = 8192  # of keys in a piece
PROGRAMS = 512  # With more of them, pieces that are read one tile after another leave more on its way.
WARPS = 4


def fits(query: Tensor, keys: Tensor) -> bool:
    """Whether `cross_query` takes them: one query a key head, and no more pieces than run at the same time."""
    rows, key_heads, length, width = keys.shape
    programs = rows * key_heads * triton.cdiv(length, tile(width))
    return query.shape[1] == key_heads * width and programs <= PROGRAMS


def tile(width: int) -> int:
    """Keys in a piece."""
    return max(16, NUMBERS // triton.next_power_of_2(width))


def cross_query(query: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    """What `single_query.plain` computes of queries [R, K · H] alone, which see all keys."""
    rows, heads, length, width = keys.shape
    count = triton.cdiv(length, tile(width))
    sums = torch.empty(rows, heads, count, width, dtype=torch.float32, device=query.device)
    peaks, weights = torch.empty(2, rows, heads, count, dtype=torch.float32, device=query.device)
    _cross_query[(rows * heads, count)](
        query, keys, values, sums, peaks, weights,
        keys.stride(0), keys.stride(1), values.stride(0), values.stride(1), length, scale,
        HEADS=heads, WIDTH=width, WIDE=triton.next_power_of_2(width), KEYS=tile(width), num_warps=WARPS,
        **overlap(query.device),
    )  # fmt: skip
    y = torch.empty_like(query)
    join_pieces[(rows * heads,)](
        sums, peaks, weights, y, count, PIECES=triton.next_power_of_2(count), WIDTH=width,
        WIDE=triton.next_power_of_2(width), num_warps=4, **overlap(query.device),
    )  # fmt: skip
    return y


@triton.jit
def _cross_query(
    query_ptr, keys_ptr, values_ptr, sums_ptr, peaks_ptr, weights_ptr,
    key_row, key_head, value_row, value_head, length, scale,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, WIDE: tl.constexpr, KEYS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    row, head, piece = tl.program_id(0) // HEADS, tl.program_id(0) % HEADS, tl.program_id(1)
    number, place = tl.arange(0, WIDE), piece * KEYS + tl.arange(0, KEYS)
    inside, seen = number < WIDTH, place < length
    keys_ptr += row.to(tl.int64) * key_row + head * key_head
    values_ptr += row.to(tl.int64) * value_row + head * value_head
    tile = place[:, None] * WIDTH + number[None, :]
    there = seen[:, None] & inside[None, :]
    key = tl.load(keys_ptr + tile, mask=there, other=0.0, eviction_policy="evict_first")
    value = tl.load(values_ptr + tile, mask=there, other=0.0, eviction_policy="evict_first")
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    query = tl.load(query_ptr + tl.program_id(0) * WIDTH + number, mask=inside, other=0.0).to(tl.float32)
    score = tl.sum(query[None, :] * key.to(tl.float32), axis=1) * scale
    score = tl.where(seen, score, float("-inf"))
    peak = tl.max(score, axis=0)
    part = tl.exp(score - peak)
    total = tl.sum(part[:, None] * value.to(tl.float32), axis=0)
    at = tl.program_id(0) * tl.num_programs(1) + piece
    tl.store(peaks_ptr + at, peak)
    tl.store(weights_ptr + at, tl.sum(part, axis=0))
    tl.store(sums_ptr + at * WIDTH + number, total, mask=inside)
