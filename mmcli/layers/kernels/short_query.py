"""Attention of one new token a row over a short KV cache where no two queries share a key head, as one kernel.

A program takes a head of a row and all that stands in the cache of it: nothing is left to be joined, and the first keys
and values are on their way before there is a query.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from mmcli.layers.kernels.launch import overlap

LONGEST = 512  # tokens of a cache: more take longer one after another than in pieces with a join
NUMBERS = 8192  # of keys that a program reads at a time
WARPS = 4


def fits(qkv: Tensor, keys: Tensor) -> bool:
    """Whether `short_query` takes them."""
    _, key_heads, length, width = keys.shape
    return length <= LONGEST and qkv.shape[1] == 3 * key_heads * width


def short_query(qkv: Tensor, keys: Tensor, values: Tensor, bias: Tensor, cursor: Tensor, scale: float) -> Tensor:
    """What `single_query.plain` computes without rotations and norms."""
    rows, heads, _, width = keys.shape
    wide = triton.next_power_of_2(width)
    y = torch.empty(rows, heads * width, dtype=qkv.dtype, device=qkv.device)
    _short_query[(rows * heads,)](
        qkv, keys, values, bias, cursor, y,
        keys.stride(0), keys.stride(1), values.stride(0), values.stride(1), bias.stride(0), scale,
        HEADS=heads, WIDTH=width, WIDE=wide, KEYS=max(16, NUMBERS // wide), num_warps=WARPS, **overlap(qkv.device),
    )  # fmt: skip
    return y


@triton.jit
def _short_query(
    qkv_ptr, keys_ptr, values_ptr, bias_ptr, cursor_ptr, y_ptr,
    key_row, key_head, value_row, value_head, bias_row, scale,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, WIDE: tl.constexpr, KEYS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """What is read before the wait was written by kernels that let none begin early: those of other steps, and those in
    front of the first layer."""
    row, head = tl.program_id(0) // HEADS, tl.program_id(0) % HEADS
    cursor = tl.load(cursor_ptr).to(tl.int32)
    number, place = tl.arange(0, WIDE), tl.arange(0, KEYS)
    inside = number < WIDTH
    keys_ptr += row.to(tl.int64) * key_row + head * key_head
    values_ptr += row.to(tl.int64) * value_row + head * value_head
    bias_ptr += row * bias_row
    tile = place[:, None] * WIDTH + number[None, :]
    seen = place < cursor
    key = tl.load(keys_ptr + tile, mask=seen[:, None] & inside[None, :], other=0.0)
    value = tl.load(values_ptr + tile, mask=seen[:, None] & inside[None, :], other=0.0)
    hidden = tl.load(bias_ptr + place, mask=seen, other=0.0).to(tl.float32)
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    qkv_ptr += row * (3 * HEADS * WIDTH) + head * WIDTH + number
    query = tl.load(qkv_ptr, mask=inside, other=0.0).to(tl.float32)
    own_key = tl.load(qkv_ptr + HEADS * WIDTH, mask=inside, other=0.0)
    own_value = tl.load(qkv_ptr + 2 * HEADS * WIDTH, mask=inside, other=0.0)
    tl.store(keys_ptr + cursor * WIDTH + number, own_key, mask=inside)
    tl.store(values_ptr + cursor * WIDTH + number, own_value, mask=inside)
    peak = tl.sum(query * own_key.to(tl.float32), axis=0) * scale
    weight = 1.0
    total = own_value.to(tl.float32)
    for first in range(0, cursor, KEYS):
        score = tl.sum(query[None, :] * key.to(tl.float32), axis=1) * scale + hidden
        score = tl.where(seen, score, float("-inf"))
        higher = tl.maximum(peak, tl.max(score, axis=0))
        shrink = tl.exp(peak - higher)
        part = tl.exp(score - higher)
        weight = weight * shrink + tl.sum(part, axis=0)
        total = total * shrink + tl.sum(part[:, None] * value.to(tl.float32), axis=0)
        peak = higher
        seen = first + KEYS + place < cursor
        tile += KEYS * WIDTH
        key = tl.load(keys_ptr + tile, mask=seen[:, None] & inside[None, :], other=0.0)
        value = tl.load(values_ptr + tile, mask=seen[:, None] & inside[None, :], other=0.0)
        hidden = tl.load(bias_ptr + first + KEYS + place, mask=seen, other=0.0).to(tl.float32)
    tl.store(
        y_ptr + row * (HEADS * WIDTH) + head * WIDTH + number, (total / weight).to(y_ptr.dtype.element_ty), mask=inside
    )
