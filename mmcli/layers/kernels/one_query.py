"""Attention of a single new token over a short KV cache as one kernel.

Programs take some queries and a piece of the cache each, as in `single_query.py`, and ask for its keys and values
before they wait for the product that makes the queries. Whoever finds that it is the last one to be done joins the
pieces: that takes less time than the start of a second kernel. With more keys there is more to join than one program
does as fast.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from mmcli.layers.kernels.functions import rms_normed
from mmcli.layers.kernels.launch import overlap
from mmcli.layers.kernels.queries import capped, turned

KEYS = 128  # of a piece, divided by the bytes of a number: more do not fit into shared memory
QUERIES = 2  # heads that a program takes, of those that share keys
WARPS = 8
MOST_PIECES = 31


def fits(keys: Tensor, heads: int, arrivals: Tensor) -> bool:
    """Whether `one_query` takes them: one row and a short cache."""
    pieces = triton.cdiv(keys.shape[2], KEYS // keys.dtype.itemsize)
    return len(keys) == 1 and pieces <= MOST_PIECES and heads <= len(arrivals)


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
    """What `single_query.plain` computes of one row.

    `arrivals` int32, one for each query head or more, count the programs that are done: zeros, as they are left again.
    """
    _, key_heads, length, width = keys.shape
    group, device = qkv.shape[1] // width // key_heads - (2 if fresh else 0), qkv.device
    block = KEYS // keys.dtype.itemsize
    queries = QUERIES if group % QUERIES == 0 else 1
    heads, pieces = key_heads * group, triton.cdiv(length, block) + (1 if fresh else 0)
    places = triton.next_power_of_2(pieces)
    sums = torch.empty(heads, places, width, device=device)
    peaks, weights = torch.empty(2, heads, places, device=device)
    y = torch.empty(1, heads * width, dtype=qkv.dtype, device=device)
    of_query, of_key, epsilon, query_bias, key_bias = norms or (None, None, 0.0, None, None)
    of_key = of_query if of_key is None else of_key  # where nothing is fresh no key is normed
    _one_query[(heads // queries, pieces)](
        qkv, keys, values, *(angles or (None, None)), bias, cursor, of_query, of_key, query_bias, key_bias,
        sums, peaks, weights, arrivals, y,
        keys.stride(1), values.stride(1), window, scale, softcap or 1.0, epsilon,
        KEY_HEADS=key_heads, GROUP=group, QUERIES=queries, WIDTH=width, WIDE=max(16, triton.next_power_of_2(width)),
        KEYS=block, PIECES=places, CAP=softcap is not None, NORMED=norms is not None, CENTRED=query_bias is not None,
        FRESH=fresh, TURNED=angles is not None, num_warps=WARPS, **overlap(device),
    )  # fmt: skip
    return y


@triton.jit
def _one_query(
    qkv_ptr, keys_ptr, values_ptr, cos_ptr, sin_ptr, bias_ptr, cursor_ptr, norm_q_ptr, norm_k_ptr,
    shift_q_ptr, shift_k_ptr, sums_ptr, peaks_ptr, weights_ptr, arrivals_ptr, y_ptr,
    key_head, value_head, window, scale, softcap, epsilon,
    KEY_HEADS: tl.constexpr, GROUP: tl.constexpr, QUERIES: tl.constexpr, WIDTH: tl.constexpr, WIDE: tl.constexpr,
    KEYS: tl.constexpr, PIECES: tl.constexpr, CAP: tl.constexpr, NORMED: tl.constexpr, CENTRED: tl.constexpr,
    FRESH: tl.constexpr, TURNED: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """The last piece is the token's own entry, if that is fresh. What is read before the wait was written by kernels
    that let none begin early: those of other steps, and those in front of the first layer."""
    part = tl.program_id(0)
    piece = tl.program_id(1)
    last = tl.num_programs(1) - 1
    head = part * QUERIES // GROUP
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
        cos = tl.load(cos_ptr + number, mask=inside, other=0.0).to(tl.float32)
        sin = tl.load(sin_ptr + number, mask=inside, other=0.0).to(tl.float32)
    keys_ptr += head * key_head
    values_ptr += head * value_head
    first = part * QUERIES * PIECES + tl.minimum(piece, filled)  # where this piece's results go, those of one query
    if own:
        if PDL:
            gdc_launch_dependents()
            gdc_wait()
        _own_entry(
            qkv_ptr, keys_ptr, values_ptr, cos, sin, norm_q_ptr, norm_k_ptr, shift_q_ptr, shift_k_ptr,
            sums_ptr, peaks_ptr, weights_ptr, first, part, head, cursor, scale, softcap, epsilon,
            KEY_HEADS, GROUP, QUERIES, WIDTH, WIDE, PIECES, CAP, NORMED, CENTRED, TURNED,
        )  # fmt: skip
    else:
        place = (begin + piece) * KEYS + tl.arange(0, KEYS)
        seen = place < end
        tile = place[:, None] * WIDTH + number[None, :]
        if PDL and not FRESH:  # an earlier layer of this step has written the entry at the cursor
            gdc_launch_dependents()
            gdc_wait()
        key = tl.load(keys_ptr + tile, mask=seen[:, None] & inside[None, :], other=0.0)
        value = tl.load(values_ptr + tile, mask=seen[:, None] & inside[None, :], other=0.0)
        hidden = tl.load(bias_ptr + place, mask=seen, other=0.0).to(tl.float32)
        if PDL and FRESH:
            gdc_launch_dependents()
            gdc_wait()
        member = tl.arange(0, 16)  # as many as the matrix units take
        query = _vectors(
            qkv_ptr, part * QUERIES, member, QUERIES, cos, sin, norm_q_ptr, shift_q_ptr, epsilon,
            WIDTH, WIDE, NORMED, CENTRED, TURNED,
        )  # fmt: skip
        score = tl.dot(query.to(key.dtype), tl.trans(key), input_precision="ieee") * scale
        score = capped(score, softcap, CAP) + hidden[None, :]
        score = tl.where(seen[None, :], score, float("-inf"))
        peak = tl.max(score, axis=1)  # finite: a piece begins at a place that is seen
        share = tl.exp(score - peak[:, None])
        total = tl.dot(share.to(value.dtype), value, input_precision="ieee")
        there = member < QUERIES
        tl.store(peaks_ptr + first + member * PIECES, peak, mask=there)
        tl.store(weights_ptr + first + member * PIECES, tl.sum(share, axis=1), mask=there)
        at = sums_ptr + (first + member * PIECES)[:, None] * WIDTH + number[None, :]
        tl.store(at, total, mask=there[:, None] & inside[None, :])
    count = filled + 1 if FRESH else filled
    tl.debug_barrier()  # every thread has written before one says so
    if tl.atomic_add(arrivals_ptr + part, 1, sem="acq_rel", scope="gpu") == count - 1:
        tl.store(arrivals_ptr + part, 0)
        y = _joined(sums_ptr, peaks_ptr, weights_ptr, part * QUERIES, count, QUERIES, WIDTH, WIDE, PIECES)
        at = y_ptr + (part * QUERIES + tl.arange(0, QUERIES))[:, None] * WIDTH + number[None, :]
        tl.store(at, y.to(y_ptr.dtype.element_ty), mask=inside[None, :])


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
    sums_ptr, peaks_ptr, weights_ptr, first, part, head, cursor, scale, softcap, epsilon,
    KEY_HEADS: tl.constexpr, GROUP: tl.constexpr, QUERIES: tl.constexpr, WIDTH: tl.constexpr, WIDE: tl.constexpr,
    PIECES: tl.constexpr, CAP: tl.constexpr, NORMED: tl.constexpr, CENTRED: tl.constexpr, TURNED: tl.constexpr,
):  # fmt: skip
    """The token's own key and value enter the cache, and are a piece of their own."""
    kind = keys_ptr.dtype.element_ty
    number = tl.arange(0, WIDE)
    inside = (number < WIDTH)[None, :]
    member = tl.arange(0, QUERIES)
    query = _vectors(
        qkv_ptr, part * QUERIES, member, QUERIES, cos, sin, norm_q_ptr, shift_q_ptr, epsilon,
        WIDTH, WIDE, NORMED, CENTRED, TURNED,
    )  # fmt: skip
    key = _vectors(
        qkv_ptr, GROUP * KEY_HEADS + head, tl.arange(0, 1), 1, cos, sin, norm_k_ptr, shift_k_ptr, epsilon,
        WIDTH, WIDE, NORMED, CENTRED, TURNED,
    ).to(kind)  # fmt: skip
    value = tl.load(qkv_ptr + ((GROUP + 1) * KEY_HEADS + head) * WIDTH + number, mask=number < WIDTH, other=0.0)
    if NORMED and not CENTRED:
        value = rms_normed(value.to(tl.float32), WIDTH, epsilon).to(kind)
    if part * QUERIES % GROUP == 0:
        tl.store(keys_ptr + cursor * WIDTH + number[None, :], key, mask=inside)
        tl.store(values_ptr + cursor * WIDTH + number, value, mask=number < WIDTH)
    score = tl.sum(query.to(kind).to(tl.float32) * key.to(tl.float32), axis=1) * scale
    tl.store(peaks_ptr + first + member * PIECES, capped(score, softcap, CAP))
    tl.store(weights_ptr + first + member * PIECES, member * 0 + 1.0)
    at = sums_ptr + (first + member * PIECES)[:, None] * WIDTH + number[None, :]
    tl.store(at, value.to(tl.float32)[None, :] + (member * 0.0)[:, None], mask=inside)


@triton.jit
def _joined(
    sums_ptr, peaks_ptr, weights_ptr, first, count,
    QUERIES: tl.constexpr, WIDTH: tl.constexpr, WIDE: tl.constexpr, PIECES: tl.constexpr,
):  # fmt: skip
    """What queries found in the first `count` pieces: [QUERIES, WIDE]."""
    number = tl.arange(0, WIDE)
    first = (first + tl.arange(0, QUERIES)) * PIECES
    inside = (number < WIDTH)[None, :]
    top = tl.full((QUERIES,), float("-inf"), tl.float32)
    for i in tl.static_range(PIECES):
        top = tl.maximum(top, _written(peaks_ptr + first + i, i < count, float("-inf")))
    weight = tl.zeros((QUERIES,), tl.float32)
    total = tl.zeros((QUERIES, WIDE), tl.float32)
    for i in tl.static_range(PIECES):
        share = tl.exp(_written(peaks_ptr + first + i, i < count, float("-inf")) - top)
        weight += share * _written(weights_ptr + first + i, i < count, 0.0)
        total += share[:, None] * _written(sums_ptr + (first + i)[:, None] * WIDTH + number, inside & (i < count), 0.0)
    return total / weight[:, None]


@triton.jit
def _written(at, there, other):
    """What other programs wrote, past this one's own first cache."""
    return tl.load(at, mask=there, other=other, cache_modifier=".cg")
