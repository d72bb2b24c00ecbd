"""Queries, keys and values of a prompt, from their one product to where they are read: normed, turned and put into the
cache, as one kernel."""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from mmcli.layers.kernels.functions import rms_normed_rows
from mmcli.layers.kernels.launch import overlap
from mmcli.layers.kernels.queries import turned
from mmcli.layers.kernels.single_query import Norms, normed
from mmcli.layers.rope import rotate


def placed(
    qkv: Tensor, keys: Tensor, values: Tensor, angles: tuple[Tensor, Tensor], norms: Norms | None = None
) -> Tensor:
    """What `plain` computes."""
    rows, key_heads, length, width = keys.shape
    heads = qkv.shape[1] // width - 2 * key_heads
    q = torch.empty(rows, length, heads, width, dtype=qkv.dtype, device=qkv.device)
    of_query, of_key, epsilon, query_bias, key_bias = Norms(None, None, 0.0) if norms is None else norms
    _placed[(rows * length,)](
        qkv, q, keys, values, *angles, of_query, of_key, query_bias, key_bias,
        length, keys.stride(0), keys.stride(1), values.stride(0), values.stride(1), epsilon,
        HEADS=heads, QUERIES=triton.next_power_of_2(heads), KEY_HEADS=key_heads,
        KEYS=triton.next_power_of_2(key_heads), WIDTH=width, WIDE=triton.next_power_of_2(width),
        NORMED=norms is not None, CENTRED=query_bias is not None, num_warps=4, **overlap(q.device),
    )  # fmt: skip
    return q.transpose(1, 2)


def plain(
    qkv: Tensor, keys: Tensor, values: Tensor, angles: tuple[Tensor, Tensor], norms: Norms | None = None
) -> Tensor:
    """qkv [B · T, (N + 2K) · H] → queries [B, N, T, H]; keys and values are written to [B, K, T, H], whose last two
    dimensions lie in memory as one.

    Queries and keys are turned by `angles` [B, 1, T, H] (of `rope.rotary_angles`).
    """
    rows, key_heads, length, width = keys.shape
    y = qkv.view(rows, length, -1, width).transpose(1, 2)
    heads = y.shape[1] - 2 * key_heads
    query, key, value = y[:, :heads], y[:, heads : heads + key_heads], y[:, heads + key_heads :]
    query, key, value = normed(query, key, value, norms)
    keys.copy_(rotate(key, *angles))
    values.copy_(value)
    return rotate(query, *angles)


@triton.jit
def _placed(
    qkv_ptr, q_ptr, keys_ptr, values_ptr, cos_ptr, sin_ptr, norm_q_ptr, norm_k_ptr, shift_q_ptr, shift_k_ptr,
    length, key_row, key_head, value_row, value_head, epsilon,
    HEADS: tl.constexpr, QUERIES: tl.constexpr, KEY_HEADS: tl.constexpr, KEYS: tl.constexpr, WIDTH: tl.constexpr,
    WIDE: tl.constexpr, NORMED: tl.constexpr, CENTRED: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    row = token // length
    place = token % length
    number = tl.arange(0, WIDE)
    inside = number < WIDTH
    partner = (number + WIDTH // 2) % WIDTH
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    cos = tl.load(cos_ptr + token * WIDTH + number, mask=inside, other=0.0).to(tl.float32)
    sin = tl.load(sin_ptr + token * WIDTH + number, mask=inside, other=0.0).to(tl.float32)
    dtype = qkv_ptr.dtype.element_ty
    qkv_ptr += token * (HEADS + 2 * KEY_HEADS) * WIDTH
    head = tl.arange(0, QUERIES)
    there = (head < HEADS)[:, None] & inside[None, :]
    query = turned(
        qkv_ptr + head * WIDTH, number, partner, there, cos, sin, norm_q_ptr, shift_q_ptr, epsilon,
        WIDTH, NORMED, CENTRED, True,
    )  # fmt: skip
    tl.store(q_ptr + (token * HEADS + head)[:, None] * WIDTH + number[None, :], query.to(dtype), mask=there)
    head = tl.arange(0, KEYS)
    there = (head < KEY_HEADS)[:, None] & inside[None, :]
    key = turned(
        qkv_ptr + (HEADS + head) * WIDTH, number, partner, there, cos, sin, norm_k_ptr, shift_k_ptr, epsilon,
        WIDTH, NORMED, CENTRED, True,
    )  # fmt: skip
    at = keys_ptr + (row * key_row + place * WIDTH) + (head * key_head)[:, None] + number[None, :]
    tl.store(at, key.to(dtype), mask=there)
    value = tl.load(qkv_ptr + (HEADS + KEY_HEADS + head)[:, None] * WIDTH + number[None, :], mask=there, other=0.0)
    if NORMED and not CENTRED:
        value = rms_normed_rows(value.to(tl.float32), WIDTH, epsilon)
    at = values_ptr + (row * value_row + place * WIDTH) + (head * value_head)[:, None] + number[None, :]
    tl.store(at, value.to(dtype), mask=there)
