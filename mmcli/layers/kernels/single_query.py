"""Attention of one new token a row over the KV cache, with its rotation and its own entry in the cache.

The cache is cut into pieces along its length that are read at the same time, each key and value once for all query
heads that share it; a second kernel joins the pieces ("flash decoding": Dao et al., 2023; the running softmax is that
of Milakov & Gimelshein, arXiv:1805.02867).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from mmcli.layers.attention import attend
from mmcli.layers.rope import rotate

KEYS = 32  # that a program looks at in one go
PROGRAMS = 256  # about as many as run at a time
MOST_PIECES = 64


def single_query(
    qkv: Tensor,
    keys: Tensor,
    values: Tensor,
    angles: tuple[Tensor, Tensor],
    bias: Tensor,
    cursor: Tensor,
    scale: float,
    softcap: float | None = None,
    window: int = 0,
) -> Tensor:
    """What `plain` computes, reading no key behind the cursor, nor one in front of the `window` (0: there is none)."""
    rows, key_heads, length, width = keys.shape
    heads = qkv.shape[1] // width - 2 * key_heads
    group, device = heads // key_heads, qkv.device
    blocks = triton.cdiv(length, KEYS)
    pieces = min(blocks, MOST_PIECES, max(1, PROGRAMS // (rows * key_heads)))
    each = triton.cdiv(blocks, pieces)
    pieces = triton.cdiv(blocks, each)
    sums = torch.empty(rows, heads, pieces, width, dtype=torch.float32, device=device)
    peaks, weights = torch.empty(2, rows, heads, pieces, dtype=torch.float32, device=device)
    wide = max(16, triton.next_power_of_2(width))
    _pieces[(rows * key_heads, pieces)](
        qkv, keys, values, *angles, bias, cursor, sums, peaks, weights,
        keys.stride(0), keys.stride(1), values.stride(0), values.stride(1), bias.stride(0),
        length, each, window, scale, softcap or 1.0,
        KEY_HEADS=key_heads, GROUP=group, GROUPS=max(16, triton.next_power_of_2(group)), WIDTH=width, WIDE=wide,
        KEYS=KEYS, CAP=softcap is not None, num_warps=4,
    )  # fmt: skip
    y = torch.empty(rows, heads * width, dtype=qkv.dtype, device=device)
    _join[(rows * heads,)](
        sums, peaks, weights, y, pieces, PIECES=triton.next_power_of_2(pieces), WIDTH=width, WIDE=wide, num_warps=4
    )
    return y


def plain(
    qkv: Tensor,
    keys: Tensor,
    values: Tensor,
    angles: tuple[Tensor, Tensor],
    bias: Tensor,
    cursor: Tensor,
    scale: float,
    softcap: float | None = None,
) -> Tensor:
    """Queries, keys and values of one token a row, qkv [R, (N + 2K) · H] → what its queries find, [R, N · H].

    Queries and keys are turned by `angles` [R, 1, 1, H] (of `rope.rotary_angles`), the new key and value are written to
    place `cursor` [1] of the cache [R, K, S, H], and the queries look at it all under `bias` [R, 1, 1, S] (of
    `attention.additive`), which hides what is behind the cursor or outside a window.
    """
    rows, key_heads, _, width = keys.shape
    y = qkv.view(rows, -1, 1, width)
    turned = rotate(y[:, :-key_heads], *angles)
    keys.index_copy_(2, cursor, turned[:, -key_heads:])
    values.index_copy_(2, cursor, y[:, -key_heads:])
    return attend(turned[:, :-key_heads], keys, values, bias, scale, softcap).flatten(1)


@triton.jit
def _pieces(
    qkv_ptr, keys_ptr, values_ptr, cos_ptr, sin_ptr, bias_ptr, cursor_ptr, sums_ptr, peaks_ptr, weights_ptr,
    key_row, key_head, value_row, value_head, bias_row, length, each, window, scale, softcap,
    KEY_HEADS: tl.constexpr, GROUP: tl.constexpr, GROUPS: tl.constexpr, WIDTH: tl.constexpr, WIDE: tl.constexpr,
    KEYS: tl.constexpr, CAP: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) // KEY_HEADS
    head = tl.program_id(0) % KEY_HEADS
    piece = tl.program_id(1)
    cursor = tl.load(cursor_ptr).to(tl.int32)
    number = tl.arange(0, WIDE)
    inside = number < WIDTH
    partner = (number + WIDTH // 2) % WIDTH
    cos = tl.load(cos_ptr + row * WIDTH + number, mask=inside, other=0.0).to(tl.float32)
    sin = tl.load(sin_ptr + row * WIDTH + number, mask=inside, other=0.0).to(tl.float32)
    dtype = qkv_ptr.dtype.element_ty
    own = qkv_ptr + row * (GROUP + 2) * KEY_HEADS * WIDTH
    member = tl.arange(0, GROUPS)
    there = (member < GROUP)[:, None] & inside[None, :]
    at = own + (head * GROUP + member)[:, None] * WIDTH
    query = tl.load(at + number[None, :], mask=there, other=0.0).to(tl.float32) * cos[None, :]
    query += tl.load(at + partner[None, :], mask=there, other=0.0).to(tl.float32) * sin[None, :]
    query = query.to(dtype)
    at = own + (GROUP * KEY_HEADS + head) * WIDTH
    new_key = tl.load(at + number, mask=inside, other=0.0).to(tl.float32) * cos
    new_key += tl.load(at + partner, mask=inside, other=0.0).to(tl.float32) * sin
    new_key = new_key.to(dtype)
    new_value = tl.load(at + KEY_HEADS * WIDTH + number, mask=inside, other=0.0)
    keys_ptr += row.to(tl.int64) * key_row + head * key_head
    values_ptr += row.to(tl.int64) * value_row + head * value_head
    begin = piece * each * KEYS
    if (begin <= cursor) & (cursor < begin + each * KEYS):
        tl.store(keys_ptr + cursor * WIDTH + number, new_key, mask=inside)
        tl.store(values_ptr + cursor * WIDTH + number, new_value, mask=inside)
    end = tl.minimum(begin + each * KEYS, cursor + 1)
    if window > 0:
        oldest = tl.maximum(cursor + 1 - window, 0) // KEYS * KEYS
        begin = tl.maximum(begin, oldest)
    peak = tl.full((GROUPS,), float("-inf"), tl.float32)
    weight = tl.zeros((GROUPS,), tl.float32)
    total = tl.zeros((GROUPS, WIDE), tl.float32)
    for first in range(begin, end, KEYS):
        place = first + tl.arange(0, KEYS)
        seen = (place <= cursor) & (place < length)
        tile = place[:, None] * WIDTH + number[None, :]
        old = (place < cursor)[:, None] & inside[None, :]
        key = tl.load(keys_ptr + tile, mask=old, other=0.0)
        key = tl.where((place == cursor)[:, None], new_key[None, :], key)
        value = tl.load(values_ptr + tile, mask=old, other=0.0)
        value = tl.where((place == cursor)[:, None], new_value[None, :], value)
        score = tl.dot(query, tl.trans(key), input_precision="ieee") * scale
        if CAP:
            score = softcap - 2.0 * softcap / (tl.exp(2.0 * score / softcap) + 1.0)
        score += tl.load(bias_ptr + row * bias_row + place, mask=seen, other=0.0).to(tl.float32)[None, :]
        score = tl.where(seen[None, :], score, float("-inf"))
        higher = tl.maximum(peak, tl.max(score, axis=1))  # finite: a block begins at a place that is seen
        shrink = tl.exp(peak - higher)
        part = tl.exp(score - higher[:, None])
        weight = weight * shrink + tl.sum(part, axis=1)
        total = total * shrink[:, None] + tl.dot(part.to(dtype), value, input_precision="ieee")
        peak = higher
    at = (row * KEY_HEADS * GROUP + head * GROUP + member) * tl.num_programs(1) + piece
    tl.store(peaks_ptr + at, peak, mask=member < GROUP)
    tl.store(weights_ptr + at, weight, mask=member < GROUP)
    tl.store(sums_ptr + at[:, None] * WIDTH + number[None, :], total, mask=there)


@triton.jit
def _join(
    sums_ptr, peaks_ptr, weights_ptr, y_ptr, pieces,
    PIECES: tl.constexpr, WIDTH: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(0)
    piece = tl.arange(0, PIECES)
    number = tl.arange(0, WIDE)
    there = piece < pieces
    peak = tl.load(peaks_ptr + head * pieces + piece, mask=there, other=float("-inf"))
    share = tl.exp(peak - tl.max(peak, axis=0))  # 0 for pieces that nothing was seen in
    weight = tl.sum(share * tl.load(weights_ptr + head * pieces + piece, mask=there, other=0.0), axis=0)
    at = sums_ptr + (head * pieces + piece)[:, None] * WIDTH + number[None, :]
    total = tl.load(at, mask=there[:, None] & (number < WIDTH)[None, :], other=0.0)
    y = tl.sum(total * share[:, None], axis=0) / weight
    tl.store(y_ptr + head * WIDTH + number, y.to(y_ptr.dtype.element_ty), mask=number < WIDTH)
