"""Attention of one new token a row over a short KV cache as one kernel.

Programs take some queries and a piece of the cache each, as in `single_query.py`, and ask for its keys and values
before they wait for the product that makes the queries. Whoever finds that it is the last one to be done joins the
pieces: that takes less time than the start of a second kernel. With more keys there is more to join than one program
does as fast.

With several rows a program takes all queries that share keys, and keys stand on the side of the matrix units that takes
64 at a time, out of shared memory. Measured on an H200 that is faster than two kernels where there are about as many
programs as multiprocessors, each of which runs one (PaliGemma with 32 rows, Gemma 3n with 16), and slower where there
are four times as many (PaliGemma 2 with 32 rows: a step takes 7 % longer) or few.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from mmcli.layers.kernels.functions import rms_normed
from mmcli.layers.kernels.launch import interpreted, is_hopper, overlap
from mmcli.layers.kernels.queries import capped, turned


class Cut(NamedTuple):
    """What a program takes."""

    keys: int  # of a piece, divided by the bytes of a number: more do not fit into shared memory
    queries: int  # heads of those that share keys; 0: all
    warps: int
    keys_first: bool  # whether keys stand on the side of the matrix units that takes 64 at a time


ONE_ROW = Cut(128, 2, 8, False)
MORE_ROWS = Cut(256, 0, 8, True)
MOST_PIECES = 31
PROGRAMS = range(67, 133)  # of several rows: half as many as an H200's multiprocessors, up to all


def fits(keys: Tensor, heads: int, arrivals: Tensor, fresh: bool) -> bool:
    """Whether `one_query` takes them and was measured to be the faster one: a short cache, and one row, or on Hopper
    several whose queries share keys."""
    rows, key_heads, length, _ = keys.shape
    cut, group = _cut(rows), heads // key_heads
    pieces, parts = triton.cdiv(length, cut.keys // keys.dtype.itemsize), rows * heads // _queries(cut, group)
    if pieces > MOST_PIECES or parts > len(arrivals):
        return False
    if rows == 1:
        return True
    many = parts * (pieces + fresh) in PROGRAMS
    return many and group > 1 and (interpreted() or is_hopper(keys.device.index))


def _cut(rows: int) -> Cut:
    return ONE_ROW if rows == 1 else MORE_ROWS


def _queries(cut: Cut, group: int) -> int:
    """How many of those that share keys a program takes."""
    return 1 if cut.queries and group % cut.queries else cut.queries or group


def one_query(
    qkv: Tensor,
    keys: Tensor,
    values: Tensor,
    angles: tuple[Tensor, Tensor] | None,
    bias: Tensor,
    cursor: Tensor,
    arrivals: Tensor,
    scale: float,
    softcap: float | None = None,
    window: int = 0,
    norms: tuple[Tensor | None, Tensor | None, float, Tensor | None, Tensor | None] | None = None,
    fresh: bool = True,
) -> Tensor:
    """What `single_query.plain` computes.

    `arrivals` int32, one for each query head of a row or more, count the programs that are done: zeros, as they are
    left again.
    """
    rows, key_heads, length, width = keys.shape
    group, device = qkv.shape[1] // width // key_heads - (2 if fresh else 0), qkv.device
    cut = _cut(rows)
    block, queries = cut.keys // keys.dtype.itemsize, _queries(cut, group)
    heads, pieces = rows * key_heads * group, triton.cdiv(length, block) + (1 if fresh else 0)
    places = triton.next_power_of_2(pieces)
    sums = torch.empty(heads, places, width, device=device)
    peaks, weights = torch.empty(2, heads, places, device=device)
    y = torch.empty(rows, key_heads * group * width, dtype=qkv.dtype, device=device)
    of_query, of_key, epsilon, query_bias, key_bias = norms or (None, None, 0.0, None, None)
    _one_query[(heads // queries, pieces)](
        qkv, keys, values, *(angles or (None, None)), bias, cursor, of_query, of_key, query_bias, key_bias,
        sums, peaks, weights, arrivals, y,
        keys.stride(0), keys.stride(1), values.stride(0), values.stride(1), bias.stride(0), window, scale,
        softcap or 1.0, epsilon,
        KEY_HEADS=key_heads, GROUP=group, QUERIES=queries, MEMBERS=triton.next_power_of_2(queries), WIDTH=width,
        WIDE=max(16, triton.next_power_of_2(width)), KEYS_FIRST=cut.keys_first,
        KEYS=block, PIECES=places, CAP=softcap is not None, NORMED=norms is not None, CENTRED=query_bias is not None,
        FRESH=fresh, TURNED=angles is not None, num_warps=cut.warps, **overlap(device),
    )  # fmt: skip
    return y


@triton.jit
def _one_query(
    qkv_ptr, keys_ptr, values_ptr, cos_ptr, sin_ptr, bias_ptr, cursor_ptr, norm_q_ptr, norm_k_ptr,
    shift_q_ptr, shift_k_ptr, sums_ptr, peaks_ptr, weights_ptr, arrivals_ptr, y_ptr,
    key_row, key_head, value_row, value_head, bias_row, window, scale, softcap, epsilon,
    KEY_HEADS: tl.constexpr, GROUP: tl.constexpr, QUERIES: tl.constexpr, MEMBERS: tl.constexpr, WIDTH: tl.constexpr,
    WIDE: tl.constexpr, KEYS_FIRST: tl.constexpr,
    KEYS: tl.constexpr, PIECES: tl.constexpr, CAP: tl.constexpr, NORMED: tl.constexpr, CENTRED: tl.constexpr,
    FRESH: tl.constexpr, TURNED: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """The last piece is the token's own entry, if that is fresh. What is read before the wait was written by kernels
    that let none begin early: those of other steps, and those in front of the first layer."""
    part = tl.program_id(0)
    piece = tl.program_id(1)
    last = tl.num_programs(1) - 1
    PARTS: tl.constexpr = KEY_HEADS * GROUP // QUERIES  # of a row
    row = part // PARTS
    queries = part % PARTS * QUERIES  # the first of this program
    head = queries // GROUP
    cursor = tl.load(cursor_ptr).to(tl.int32)
    end = cursor if FRESH else cursor + 1
    begin = 0
    if window > 0:
        begin = tl.maximum(cursor + 1 - window, 0) // KEYS
    filled = tl.maximum(tl.cdiv(end, KEYS) - begin, 0)  # pieces of the cache that hold something
    own = FRESH & (piece == last)
    if (piece >= filled) & (not own):
        return
    number = tl.arange(0, WIDE)
    inside = number < WIDTH
    cos, sin = number, number  # of no use where nothing is turned
    if TURNED:
        cos = tl.load(cos_ptr + row * WIDTH + number, mask=inside, other=0.0).to(tl.float32)
        sin = tl.load(sin_ptr + row * WIDTH + number, mask=inside, other=0.0).to(tl.float32)
    qkv_ptr += row * (GROUP + (2 if FRESH else 0)) * KEY_HEADS * WIDTH
    keys_ptr += row.to(tl.int64) * key_row + head * key_head
    values_ptr += row.to(tl.int64) * value_row + head * value_head
    first = part * QUERIES * PIECES + tl.minimum(piece, filled)  # where this piece's results go, those of one query
    if own:
        if PDL:
            gdc_launch_dependents()
            gdc_wait()
        if FRESH:  # else there is nothing to compile it with
            _own_entry(
                qkv_ptr, keys_ptr, values_ptr, cos, sin, norm_q_ptr, norm_k_ptr, shift_q_ptr, shift_k_ptr,
                sums_ptr, peaks_ptr, weights_ptr, first, queries, head, cursor, scale, softcap, epsilon,
                KEY_HEADS, GROUP, QUERIES, MEMBERS, WIDTH, WIDE, PIECES, CAP, NORMED, CENTRED, TURNED,
            )  # fmt: skip
    else:
        place = (begin + piece) * KEYS + tl.arange(0, KEYS)
        seen = place < end
        tile = place[:, None] * WIDTH + number[None, :]
        there = seen[:, None] & inside[None, :]
        if PDL:
            gdc_launch_dependents()
            if not FRESH:  # noqa: SIM102 (known when it is compiled)
                if piece == filled - 1:  # the newest entry is that of an earlier layer of this step
                    gdc_wait()
        key = tl.load(keys_ptr + tile, mask=there, other=0.0)
        value = tl.load(values_ptr + tile, mask=there, other=0.0)
        hidden = tl.load(bias_ptr + row * bias_row + place, mask=seen, other=0.0).to(tl.float32)
        if PDL:
            gdc_wait()
        member = tl.arange(0, max(16, MEMBERS))  # as many as the matrix units take
        query = _vectors(
            qkv_ptr, queries, member, QUERIES, cos, sin, norm_q_ptr, shift_q_ptr, epsilon,
            WIDTH, WIDE, NORMED, CENTRED, TURNED,
        )  # fmt: skip
        asked = member < QUERIES
        if KEYS_FIRST:
            score = tl.dot(key, tl.trans(query.to(key.dtype)), input_precision="ieee") * scale
            score = capped(score, softcap, CAP) + hidden[:, None]
            score = tl.where(seen[:, None], score, float("-inf"))
            peak = tl.max(score, axis=0)  # finite: a piece begins at a place that is seen
            share = tl.exp(score - peak[None, :])
            weight = tl.sum(share, axis=0)
            total = tl.dot(tl.trans(value), share.to(value.dtype), input_precision="ieee")
            at = sums_ptr + (first + member * PIECES)[None, :] * WIDTH + number[:, None]
            tl.store(at, total, mask=asked[None, :] & inside[:, None])
        else:
            score = tl.dot(query.to(key.dtype), tl.trans(key), input_precision="ieee") * scale
            score = capped(score, softcap, CAP) + hidden[None, :]
            score = tl.where(seen[None, :], score, float("-inf"))
            peak = tl.max(score, axis=1)  # finite: a piece begins at a place that is seen
            share = tl.exp(score - peak[:, None])
            weight = tl.sum(share, axis=1)
            total = tl.dot(share.to(value.dtype), value, input_precision="ieee")
            at = sums_ptr + (first + member * PIECES)[:, None] * WIDTH + number[None, :]
            tl.store(at, total, mask=asked[:, None] & inside[None, :])
        tl.store(peaks_ptr + first + member * PIECES, peak, mask=asked)
        tl.store(weights_ptr + first + member * PIECES, weight, mask=asked)
    count = filled + 1 if FRESH else filled
    tl.debug_barrier()  # every thread has written before one says so
    if tl.atomic_add(arrivals_ptr + part, 1, sem="acq_rel", scope="gpu") == count - 1:
        tl.store(arrivals_ptr + part, 0)
        y = _joined(sums_ptr, peaks_ptr, weights_ptr, part * QUERIES, count, QUERIES, MEMBERS, WIDTH, WIDE, PIECES)
        of_part = tl.arange(0, MEMBERS)
        at = y_ptr + (part * QUERIES + of_part)[:, None] * WIDTH + number[None, :]
        tl.store(at, y.to(y_ptr.dtype.element_ty), mask=(of_part < QUERIES)[:, None] & inside[None, :])


@triton.jit
def _vectors(
    qkv_ptr, first, member, count, cos, sin, scale_ptr, shift_ptr, epsilon,
    WIDTH: tl.constexpr, WIDE: tl.constexpr, NORMED: tl.constexpr, CENTRED: tl.constexpr, TURNED: tl.constexpr,
):  # fmt: skip
    """Vectors first, …, first + count - 1 of qkv, normed and turned to their position: [members, WIDE]."""
    number = tl.arange(0, WIDE)
    partner = (number + WIDTH // 2) % WIDTH
    there = (member < count)[:, None] & (number < WIDTH)[None, :]
    at = qkv_ptr + (first + member) * WIDTH
    return turned(at, number, partner, there, cos, sin, scale_ptr, shift_ptr, epsilon, WIDTH, NORMED, CENTRED, TURNED)


@triton.jit
def _own_entry(
    qkv_ptr, keys_ptr, values_ptr, cos, sin, norm_q_ptr, norm_k_ptr, shift_q_ptr, shift_k_ptr,
    sums_ptr, peaks_ptr, weights_ptr, first, queries, head, cursor, scale, softcap, epsilon,
    KEY_HEADS: tl.constexpr, GROUP: tl.constexpr, QUERIES: tl.constexpr, MEMBERS: tl.constexpr, WIDTH: tl.constexpr,
    WIDE: tl.constexpr, PIECES: tl.constexpr, CAP: tl.constexpr, NORMED: tl.constexpr, CENTRED: tl.constexpr,
    TURNED: tl.constexpr,
):  # fmt: skip
    """The token's own key and value enter the cache, and are a piece of their own."""
    kind = keys_ptr.dtype.element_ty
    number = tl.arange(0, WIDE)
    inside = (number < WIDTH)[None, :]
    member = tl.arange(0, MEMBERS)
    asked = member < QUERIES
    query = _vectors(
        qkv_ptr, queries, member, QUERIES, cos, sin, norm_q_ptr, shift_q_ptr, epsilon,
        WIDTH, WIDE, NORMED, CENTRED, TURNED,
    )  # fmt: skip
    key = _vectors(
        qkv_ptr, GROUP * KEY_HEADS + head, tl.arange(0, 1), 1, cos, sin, norm_k_ptr, shift_k_ptr, epsilon,
        WIDTH, WIDE, NORMED, CENTRED, TURNED,
    ).to(kind)  # fmt: skip
    value = tl.load(qkv_ptr + ((GROUP + 1) * KEY_HEADS + head) * WIDTH + number, mask=number < WIDTH, other=0.0)
    if NORMED and not CENTRED:
        value = rms_normed(value.to(tl.float32), WIDTH, epsilon).to(kind)
    if queries % GROUP == 0:
        tl.store(keys_ptr + cursor * WIDTH + number[None, :], key, mask=inside)
        tl.store(values_ptr + cursor * WIDTH + number, value, mask=number < WIDTH)
    score = tl.sum(query.to(kind).to(tl.float32) * key.to(tl.float32), axis=1) * scale
    tl.store(peaks_ptr + first + member * PIECES, capped(score, softcap, CAP), mask=asked)
    tl.store(weights_ptr + first + member * PIECES, member * 0 + 1.0, mask=asked)
    at = sums_ptr + (first + member * PIECES)[:, None] * WIDTH + number[None, :]
    tl.store(at, value.to(tl.float32)[None, :] + (member * 0.0)[:, None], mask=asked[:, None] & inside)


@triton.jit
def _joined(
    sums_ptr, peaks_ptr, weights_ptr, first, count,
    QUERIES: tl.constexpr, MEMBERS: tl.constexpr, WIDTH: tl.constexpr, WIDE: tl.constexpr, PIECES: tl.constexpr,
):  # fmt: skip
    """What queries found in the first `count` pieces: [MEMBERS, WIDE]."""
    number = tl.arange(0, WIDE)
    member = tl.arange(0, MEMBERS)
    asked = member < QUERIES
    first = (first + member) * PIECES
    inside = asked[:, None] & (number < WIDTH)[None, :]
    top = tl.full((MEMBERS,), float("-inf"), tl.float32)
    for i in tl.static_range(PIECES):
        top = tl.maximum(top, _written(peaks_ptr + first + i, asked & (i < count), float("-inf")))
    top = tl.where(asked, top, 0.0)
    weight = tl.where(asked, 0.0, 1.0)
    total = tl.zeros((MEMBERS, WIDE), tl.float32)
    for i in tl.static_range(PIECES):
        share = tl.exp(_written(peaks_ptr + first + i, asked & (i < count), float("-inf")) - top)
        weight += share * _written(weights_ptr + first + i, asked & (i < count), 0.0)
        total += share[:, None] * _written(sums_ptr + (first + i)[:, None] * WIDTH + number, inside & (i < count), 0.0)
    return total / weight[:, None]


@triton.jit
def _written(at, there, other):
    """What other programs wrote, past this one's own first cache."""
    return tl.load(at, mask=there, other=other, cache_modifier=".cg")
