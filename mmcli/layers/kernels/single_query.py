"""Attention of one new token a row over the KV cache, with its norms, its rotation and its own entry in the cache.

The cache is cut into pieces along its length that are read at the same time, each key and value once for all query
heads that share it; a second kernel joins the pieces ("flash decoding": Dao et al., 2023; the running softmax is that
of Milakov & Gimelshein, arXiv:1805.02867).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from mmcli.layers.attention import attend
from mmcli.layers.kernels import one_query
from mmcli.layers.kernels.functions import into_cache, rms_normed
from mmcli.layers.kernels.launch import overlap
from mmcli.layers.kernels.queries import capped, turned
from mmcli.layers.rope import rotate

KEYS = 128  # that a program reads in one go, divided by the bytes of a number: more do not fit into shared memory
PROGRAMS = 1 << 16  # about as many as run at a time, times the numbers of a key, whose space they share
MOST_PIECES = 64
WARPS = 4
STAGES = 2  # tiles of keys and values on their way: more would not fit into the shared memory of small cards
# Where each query has narrow keys of its own that an encoder made: programs in all, what `KEYS` is, and tiles.
WHOLE_PROGRAMS, WHOLE_KEYS, WHOLE_STAGES = 320, 256, 3
NARROW = 64
# Keys so wide, of so many heads in all rows, in a cache so short: half as many at a time, by twice as many programs.
# A step of PaliGemma 2 with 32 rows takes 2.16 instead of 2.19 ms so.
WIDE, MANY_HEADS, SHORT = 256, 128, 512


class Norms(NamedTuple):
    """RMSNorms of queries and keys by weights [H], and of values without one; with biases LayerNorms, of the first two
    only."""

    query: Tensor | None
    key: Tensor | None
    epsilon: float
    query_bias: Tensor | None = None
    key_bias: Tensor | None = None


def normed(query: Tensor, key: Tensor, value: Tensor, norms: Norms | None) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values [..., H] behind their norms, if any."""
    if norms is None:
        return query, key, value
    width = query.shape[-1:]
    if norms.query_bias is not None:
        query = F.layer_norm(query, width, norms.query, norms.query_bias, norms.epsilon)
        return query, F.layer_norm(key, width, norms.key, norms.key_bias, norms.epsilon), value
    query = F.rms_norm(query, width, norms.query, norms.epsilon)
    return query, F.rms_norm(key, width, norms.key, norms.epsilon), F.rms_norm(value, width, None, norms.epsilon)


def single_query(
    qkv: Tensor,
    keys: Tensor,
    values: Tensor,
    angles: tuple[Tensor, Tensor] | None,
    bias: Tensor | None,
    cursor: Tensor | None,
    scale: float,
    softcap: float | None = None,
    window: int = 0,
    norms: Norms | None = None,
    fresh: bool = True,
    arrivals: Tensor | None = None,
) -> Tensor:
    """What `plain` computes, reading no key behind the cursor, nor one in front of the `window` (0: there is none).

    With `arrivals` (`KVCache.arrivals`) it is one kernel where that is faster.
    """
    rows, key_heads, length, width = keys.shape
    heads = qkv.shape[1] // width - (2 * key_heads if fresh else 0)
    counted = arrivals is not None and one_query.fits(keys, heads, arrivals, fresh)
    if counted and arrivals is not None and bias is not None and cursor is not None:
        return one_query.one_query(
            qkv, keys, values, angles, bias, cursor, arrivals, scale, softcap, window, norms, fresh
        )
    group, device = heads // key_heads, qkv.device
    whole = cursor is None and group == 1 and width <= NARROW
    block = max(16, (WHOLE_KEYS if whole else KEYS) // qkv.dtype.itemsize)
    wide = max(16, triton.next_power_of_2(width))
    idle = triton.cdiv(length, block) * rows * key_heads <= PROGRAMS // (4 * wide)  # much of the device
    many = width >= WIDE and rows * key_heads >= MANY_HEADS and length <= SHORT
    if (idle or many) and not whole:
        block = max(16, block // 2)
    blocks = triton.cdiv(length, block)
    programs = WHOLE_PROGRAMS if whole else PROGRAMS // wide * (2 if many else 1)
    pieces = min(blocks, MOST_PIECES, max(1, programs // (rows * key_heads)))
    each = triton.cdiv(blocks, pieces)
    pieces = triton.cdiv(blocks, each)
    sums = torch.empty(rows, heads, pieces, width, dtype=torch.float32, device=device)
    peaks, weights = torch.empty(2, rows, heads, pieces, dtype=torch.float32, device=device)
    after = overlap(device)
    of_query, of_key, epsilon, query_bias, key_bias = Norms(None, None, 0.0) if norms is None else norms
    _pieces[(rows * key_heads, pieces)](
        qkv, keys, values, *(angles or (None, None)), bias, cursor, of_query, of_key, query_bias, key_bias,
        sums, peaks, weights,
        keys.stride(0), keys.stride(1), values.stride(0), values.stride(1), 0 if bias is None else bias.stride(0),
        each, length, window, scale, softcap or 1.0, epsilon,
        KEY_HEADS=key_heads, GROUP=group, GROUPS=max(16, triton.next_power_of_2(group)), WIDTH=width, WIDE=wide,
        KEYS=block, CAP=softcap is not None, NORMED=norms is not None, CENTRED=query_bias is not None, FRESH=fresh,
        TURNED=angles is not None, BIASED=bias is not None, WHOLE=cursor is None,
        num_warps=WARPS, num_stages=1 if qkv.dtype.itemsize > 2 else WHOLE_STAGES if whole else STAGES, **after,
    )  # fmt: skip
    y = torch.empty(rows, heads * width, dtype=qkv.dtype, device=device)
    join_pieces[(rows * heads,)](
        sums, peaks, weights, y, pieces,
        PIECES=triton.next_power_of_2(pieces), WIDTH=width, WIDE=wide, num_warps=4, **after,
    )  # fmt: skip
    return y


def plain(
    qkv: Tensor,
    keys: Tensor,
    values: Tensor,
    angles: tuple[Tensor, Tensor] | None,
    bias: Tensor | None,
    cursor: Tensor | None,
    scale: float,
    softcap: float | None = None,
    norms: Norms | None = None,
    fresh: bool = True,
) -> Tensor:
    """Queries, keys and values of one token a row, qkv [R, (N + 2K) · H] → what its queries find, [R, N · H].

    Queries and keys are turned by `angles` [R, 1, 1, H] (of `rope.rotary_angles`), the new key and value are written to
    place `cursor` [1] of the cache [R, K, S, H], and the queries attend to it all under `bias` [R, 1, 1, S] (of
    `attention.additive`), which hides what is behind the cursor or outside a window. Where the token's entry stands in
    the cache already there are queries only, and it is not `fresh`. Without `angles` nothing is turned, without `bias`
    nothing hidden; without a `cursor` nothing is fresh, and all of the cache is seen.
    """
    rows, key_heads, _, width = keys.shape
    y = qkv.view(rows, -1, 1, width)
    heads = y.shape[1] - (2 * key_heads if fresh else 0)
    query, key, value = y[:, :heads], y[:, heads : heads + key_heads], y[:, heads + key_heads :]
    query, key, value = normed(query, key, value, norms)
    if angles is not None:
        query, key = rotate(query, *angles), rotate(key, *angles)
    if fresh:
        assert cursor is not None
        keys.index_copy_(2, cursor, key)
        values.index_copy_(2, cursor, value)
    mask = torch.zeros(rows, 1, 1, keys.shape[2], dtype=query.dtype, device=query.device) if bias is None else bias
    return attend(query, keys, values, mask, scale, softcap).flatten(1)


@triton.jit
def _pieces(
    qkv_ptr, keys_ptr, values_ptr, cos_ptr, sin_ptr, bias_ptr, cursor_ptr, norm_q_ptr, norm_k_ptr,
    shift_q_ptr, shift_k_ptr,
    sums_ptr, peaks_ptr, weights_ptr, key_row, key_head, value_row, value_head, bias_row,
    each, length, window, scale, softcap, epsilon,
    KEY_HEADS: tl.constexpr, GROUP: tl.constexpr, GROUPS: tl.constexpr, WIDTH: tl.constexpr, WIDE: tl.constexpr,
    KEYS: tl.constexpr, CAP: tl.constexpr, NORMED: tl.constexpr, CENTRED: tl.constexpr, FRESH: tl.constexpr,
    TURNED: tl.constexpr, BIASED: tl.constexpr, WHOLE: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """What is read before the wait was written by kernels that let none begin early: those of other steps, and those in
    front of the first layer."""
    row = tl.program_id(0) // KEY_HEADS
    head = tl.program_id(0) % KEY_HEADS
    piece = tl.program_id(1)
    cursor = length - 1 if WHOLE else tl.load(cursor_ptr).to(tl.int32)
    number = tl.arange(0, WIDE)
    inside = number < WIDTH
    partner = (number + WIDTH // 2) % WIDTH
    member = tl.arange(0, GROUPS)
    cos, sin = number, number  # of no use where nothing is turned
    if TURNED:
        cos = tl.load(cos_ptr + row * WIDTH + number, mask=inside, other=0.0).to(tl.float32)
        sin = tl.load(sin_ptr + row * WIDTH + number, mask=inside, other=0.0).to(tl.float32)
    dtype = qkv_ptr.dtype.element_ty
    qkv_ptr += row * (GROUP + (2 if FRESH else 0)) * KEY_HEADS * WIDTH
    keys_ptr += row.to(tl.int64) * key_row + head * key_head
    values_ptr += row.to(tl.int64) * value_row + head * value_head
    there = (member < GROUP)[:, None] & inside[None, :]
    begin = piece * each * KEYS
    if PDL:
        into_cache(keys_ptr, begin * WIDTH, KEYS * WIDTH, length * WIDTH)
        into_cache(values_ptr, begin * WIDTH, KEYS * WIDTH, length * WIDTH)
        gdc_launch_dependents()
        gdc_wait()
    at = qkv_ptr + (head * GROUP + member) * WIDTH
    query = turned(
        at, number, partner, there, cos, sin, norm_q_ptr, shift_q_ptr, epsilon, WIDTH, NORMED, CENTRED, TURNED
    ).to(dtype)
    peak = tl.full((GROUPS,), float("-inf"), tl.float32)
    weight = tl.zeros((GROUPS,), tl.float32)
    total = tl.zeros((GROUPS, WIDE), tl.float32)
    if FRESH:
        end = cursor  # the rest of what is seen stands in the cache
        if (begin <= cursor) & (cursor < begin + each * KEYS):
            own = qkv_ptr + (GROUP * KEY_HEADS + head + tl.arange(0, 1)) * WIDTH
            new = turned(
                own, number, partner, inside[None, :], cos, sin, norm_k_ptr, shift_k_ptr, epsilon,
                WIDTH, NORMED, CENTRED, TURNED,
            ).to(dtype)  # fmt: skip
            tl.store(keys_ptr + cursor * WIDTH + number[None, :], new, mask=inside[None, :])
            peak = capped(tl.sum(query.to(tl.float32) * new.to(tl.float32), axis=1) * scale, softcap, CAP)
            weight = weight + 1.0
            got = tl.load(qkv_ptr + ((GROUP + 1) * KEY_HEADS + head) * WIDTH + number, mask=inside, other=0.0)
            got = got.to(tl.float32)
            if NORMED and not CENTRED:
                got = rms_normed(got, WIDTH, epsilon)
            tl.store(values_ptr + cursor * WIDTH + number, got.to(dtype), mask=inside)
            total = total + got.to(dtype).to(tl.float32)[None, :]
    else:
        end = cursor + 1
    end = tl.minimum(begin + each * KEYS, end)
    if window > 0:
        begin = tl.maximum(begin, tl.maximum(cursor + 1 - window, 0) // KEYS * KEYS)
    for first in range(begin, end, KEYS):
        place = first + tl.arange(0, KEYS)
        seen = place < end
        tile = place[:, None] * WIDTH + number[None, :]
        key = tl.load(keys_ptr + tile, mask=seen[:, None] & inside[None, :], other=0.0)
        value = tl.load(values_ptr + tile, mask=seen[:, None] & inside[None, :], other=0.0)
        score = capped(tl.dot(query, tl.trans(key), input_precision="ieee") * scale, softcap, CAP)
        if BIASED:
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
def join_pieces(
    sums_ptr, peaks_ptr, weights_ptr, y_ptr, pieces,
    PIECES: tl.constexpr, WIDTH: tl.constexpr, WIDE: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """What a head of a row found, of its pieces' sums, peaks and weights: one program each."""
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
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
