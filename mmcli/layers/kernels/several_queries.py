"""Attention of a prompt's tokens to each other under a mask, as one kernel that writes no scores.

Each program has some queries of one head and reads keys and values tile by tile ("flash attention": Dao et al.,
arXiv:2205.14135; the running softmax is that of Milakov & Gimelshein, arXiv:1805.02867). PyTorch's own kernels take no
cap on scores, make numbers of a mask in further kernels, and leave much of a device idle with few queries.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from mmcli.layers.kernels.functions import tanh
from mmcli.layers.kernels.launch import overlap

LOWEST = tl.constexpr(-1e30)  # what a hidden score counts as: finite, so that a tile may hold nothing else


class Tiles(NamedTuple):
    """How attention is cut into programs."""

    queries: int  # of a program
    keys: int  # of a tile
    warps: int
    stages: int  # tiles of keys and values in shared memory


FEW, MANY = Tiles(32, 64, 8, 2), Tiles(16, 32, 4, 3)
FEW_QUERIES = 1 << 12  # of all heads: those of one row


def several_queries(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor,
    scale: float,
    softcap: float | None = None,
    tiles: Tiles | None = None,
) -> Tensor:
    """What `plain` computes; the result lies in memory as [B, T, N, H]."""
    (rows, heads, count, width), length = q.shape, k.shape[2]
    tiles = tiles or (FEW if rows * heads * count <= FEW_QUERIES else MANY)
    y = torch.empty(rows, count, heads, width, dtype=q.dtype, device=q.device)
    mask = mask.expand(rows, 1, count, length).view(torch.uint8)
    _several_queries[(triton.cdiv(count, tiles.queries), rows * heads)](
        q, k, v, mask, y, count, length, *q.stride()[:3], *k.stride()[:3], *v.stride()[:3],
        mask.stride(0), mask.stride(2), scale, softcap or 1.0,
        HEADS=heads, GROUP=heads // k.shape[1], WIDTH=width, WIDE=max(16, triton.next_power_of_2(width)),
        QUERIES=tiles.queries, KEYS=tiles.keys, CAP=softcap is not None,
        num_warps=tiles.warps, num_stages=tiles.stages, **overlap(q.device),
    )  # fmt: skip
    return y.transpose(1, 2)


def plain(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float, softcap: float | None = None) -> Tensor:
    """Softmax attention as `attention.attend` has it: q [B, N, T, H], k and v [B, K, S, H], mask [B, 1, T, S], True
    where a query may attend."""
    k, v = (part.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for part in (k, v))
    scores = q @ k.mT * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    return scores.masked_fill(~mask, -torch.inf).softmax(dim=-1) @ v


@triton.jit
def _several_queries(
    q_ptr, k_ptr, v_ptr, mask_ptr, y_ptr, count, length,
    q_row, q_head, q_token, k_row, k_head, k_token, v_row, v_head, v_token, mask_row, mask_token, scale, softcap,
    HEADS: tl.constexpr, GROUP: tl.constexpr, WIDTH: tl.constexpr, WIDE: tl.constexpr, QUERIES: tl.constexpr,
    KEYS: tl.constexpr, CAP: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(1) // HEADS).to(tl.int64)
    head = tl.program_id(1) % HEADS
    token = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    number = tl.arange(0, WIDE)
    asked = (token < count)[:, None]
    there = asked & (number < WIDTH)[None, :]
    k_ptr += row * k_row + head // GROUP * k_head
    v_ptr += row * v_row + head // GROUP * v_head
    mask_ptr += row * mask_row + token[:, None].to(tl.int64) * mask_token
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    q = tl.load(q_ptr + row * q_row + head * q_head + token[:, None] * q_token + number[None, :], mask=there, other=0.0)
    peak = tl.full((QUERIES,), LOWEST, tl.float32)
    weight = tl.zeros((QUERIES,), tl.float32)
    total = tl.zeros((QUERIES, WIDE), tl.float32)
    for first in range(0, length, KEYS):
        place = first + tl.arange(0, KEYS)
        inside = (place < length)[:, None] & (number < WIDTH)[None, :]
        key = tl.load(k_ptr + place[:, None] * k_token + number[None, :], mask=inside, other=0.0)
        score = tl.dot(q, tl.trans(key), input_precision="ieee") * scale
        if CAP:
            score = softcap * tanh(score / softcap)
        seen = tl.load(mask_ptr + place[None, :], mask=asked & (place < length)[None, :], other=0)
        score = tl.where(seen != 0, score, LOWEST)
        # What was summed before the first key that is seen comes to nothing when that one is.
        higher = tl.maximum(peak, tl.max(score, axis=1))
        shrink = tl.exp(peak - higher)
        part = tl.exp(score - higher[:, None])
        weight = weight * shrink + tl.sum(part, axis=1)
        value = tl.load(v_ptr + place[:, None] * v_token + number[None, :], mask=inside, other=0.0)
        total = tl.dot(part.to(value.dtype), value, total * shrink[:, None], input_precision="ieee")
        peak = higher
    at = y_ptr + ((row * count + token[:, None]) * HEADS + head) * WIDTH + number[None, :]
    tl.store(at, (total / weight[:, None]).to(y_ptr.dtype.element_ty), mask=there)
