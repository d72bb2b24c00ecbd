"""Attention on the CPU to keys and values in 8-bit integers, which every step of a decoder reads anew.

A key, and a value, has one scale a head; queries and weights stay in bfloat16. Such a step reads half of what it would
read in bfloat16, and that is all the memory there is for the audio.
"""

from collections.abc import Callable, Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from mmcli.errors import raise_if_interrupted

LARGEST = 126  # less than int8 holds, since scales are rounded
MULTIPLE = 64  # of what is summed over: PyTorch's product does not look at how many there are and reads past their end
MOST_QUERIES = 32  # a row: for more, keys and values are worth making bfloat16 of

KeysValues = tuple[Tensor, Tensor, Tensor, Tensor]
"""Keys int8 [B, N, F, H'] and values int8 [B, N, H, F'], where zeros fill H and F up to multiples of 64; the scales of
keys bfloat16 [B, N, F], into which that of attention went, and of values float32 [B, N, 1, F]."""


def keys_values(project: Callable[[Tensor], Tensor], states: Tensor, heads: int, piece: int) -> KeysValues:
    """Of states [B, F, D]: `project` gives keys and values [B, T, 2D] of T of them, so many (`piece`) at a time."""
    batch, places, width = states.shape
    head = width // heads
    k = states.new_zeros(batch, heads, places, filled_up(head), dtype=torch.int8)
    v = states.new_zeros(batch, heads, head, filled_up(places), dtype=torch.int8)
    k_scale = states.new_empty(batch, heads, places, dtype=torch.bfloat16)
    v_scale = states.new_empty(batch, heads, 1, places, dtype=torch.float32)
    for first in range(0, places, piece):
        there = slice(first, min(first + piece, places))
        parts = project(states[:, there]).float().unflatten(-1, (2, heads, head))
        scale = parts.abs().amax(dim=-1, keepdim=True).clamp_(min=1e-30).mul_(1 / LARGEST)
        # That of a key is counted as it is kept: with the scale of attention, and in bfloat16.
        k_scale[..., there] = scale[:, :, 0, :, 0].mul(head**-0.5).mT
        v_scale[:, :, 0, there] = scale[:, :, 1, :, 0].mT
        scale[:, :, 0, :, 0] = k_scale[..., there].mT.float().mul_(head**0.5)
        whole = (parts / scale).round_().to(torch.int8)
        k[:, :, there, :head] = whole[:, :, 0].transpose(1, 2)
        v[..., there] = whole[:, :, 1].permute(0, 2, 3, 1)
    return k, v, k_scale, v_scale


def attend(q: Tensor, k: Tensor, v: Tensor, k_scale: Tensor, v_scale: Tensor) -> Tensor:
    """Queries [B, N, T, H], and keys and values as `keys_values` made them → [B, N, T, H] in bfloat16.

    What a query finds does not depend on how many there are beside it, up to `MOST_QUERIES`.
    """
    batch, heads, queries, width = q.shape
    q = q.to(torch.bfloat16)
    if queries > MOST_QUERIES:
        return F.scaled_dot_product_attention(q, *in_bfloat16(k, v, k_scale, v_scale))
    if k.shape[3] != width:
        q = F.pad(q, (0, k.shape[3] - width))
    scores = by_head(q, k, k_scale.flatten(0, 1).unbind())
    weights = scores.new_zeros(batch, heads, queries, v.shape[3])
    torch.mul(scores.softmax(dim=-1, dtype=torch.float32), v_scale, out=weights[..., : k.shape[2]])
    return by_head(weights, v, [weights.new_ones(width)] * (batch * heads))


def by_head(x: Tensor, whole: Tensor, scales: Sequence[Tensor]) -> Tensor:
    """bfloat16 [B, N, T, K], int8 [B, N, M, K], and B · N times the scales [M] → bfloat16 [B, N, T, M]."""
    heads = zip(x.flatten(0, 1).unbind(), whole.flatten(0, 1).unbind(), scales, strict=True)
    return torch.stack([torch._weight_int8pack_mm(*parts) for parts in heads]).view(*x.shape[:3], -1)


def in_bfloat16(k: Tensor, v: Tensor, k_scale: Tensor, v_scale: Tensor) -> tuple[Tensor, Tensor]:
    """The keys and values [B, N, F, H] themselves."""
    width, places = v.shape[2], k.shape[2]
    keys = k[..., :width] * (k_scale.float() * width**0.5).unsqueeze(-1)
    return keys.to(torch.bfloat16), (v[..., :places] * v_scale).mT.to(torch.bfloat16)


def filled_up(size: int) -> int:
    """The next multiple of `MULTIPLE`."""
    return size + -size % MULTIPLE


@cache
def works() -> bool:
    """Whether PyTorch has the product here, which is none of its public ones."""
    x = torch.linspace(-1, 1, 2 * MULTIPLE, dtype=torch.bfloat16).view(2, MULTIPLE)
    whole = torch.arange(3 * MULTIPLE, dtype=torch.int8).view(3, MULTIPLE)
    scale = torch.tensor([0.5, 1.0, 0.25], dtype=torch.bfloat16)
    try:
        found = torch._weight_int8pack_mm(x, whole, scale).float()
        return torch.allclose(found, x.float() @ (whole.float() * scale.float()[:, None]).T, rtol=1e-2, atol=1e-1)
    except (RuntimeError, AttributeError, TypeError, NotImplementedError) as error:
        raise_if_interrupted(error)
        return False
