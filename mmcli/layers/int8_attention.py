"""Attention on the CPU to keys and values in 8-bit integers, which every step of a decoder reads anew.

Both products of attention are sums of rows with weights: of values by how much each is attended to, and of a key's
channels, all places of one beside each other, by the query. FBGEMM has such sums, as bags of rows of a table of
embeddings, for rows in 8 bits with a scale and an offset each. Such a step reads half of what it would read in
bfloat16, and that is all the memory there is for the audio.
"""

from collections.abc import Callable
from functools import cache, lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from mmcli.layers.trial import succeeds

TAIL = 8  # bytes behind a row's integers: its scale and its offset in float32
MOST_QUERIES = 32  # a row: for more, keys and values are worth making bfloat16 of

KeysValues = tuple[Tensor, Tensor]
"""Keys uint8 [B, N, H, F + TAIL], a row a channel, and values uint8 [B, N, F, H + TAIL], a row a place."""


def keys_values(project: Callable[[Tensor], Tensor], states: Tensor, heads: int, piece: int) -> KeysValues:
    """Of states [B, F, D]: `project` gives keys and values [B, T, 2D] of T of them, so many (`piece`) at a time."""
    batch, places, width = states.shape
    head = width // heads
    k = states.new_empty(batch, heads, head, places, dtype=torch.float32)  # a channel is rounded as a whole
    v = states.new_empty(batch, heads, places, head + TAIL, dtype=torch.uint8)
    for first in range(0, places, piece):
        there = slice(first, first + piece)
        keys, values = project(states[:, there]).chunk(2, dim=-1)
        for row, part in zip(k, keys, strict=True):
            # What is in one piece, and has two dimensions, PyTorch turns over in blocks: three times as fast.
            row[..., there] = part.contiguous().t().contiguous().unflatten(0, (heads, head))
        v[:, :, there] = rounded(values.unflatten(-1, (heads, head))).transpose(1, 2)
    return rounded(k), v


def rounded(x: Tensor) -> Tensor:
    """Rows float32 [..., S, W] → uint8 [..., S, W + TAIL]."""
    rows: Tensor = torch.ops.quantized.embedding_bag_byte_prepack(x.flatten(0, -2))
    return rows.view(*x.shape[:-1], -1)


def unrounded(rows: Tensor) -> Tensor:
    """What `rounded` was made of, but for rounding."""
    x: Tensor = torch.ops.quantized.embedding_bag_byte_unpack(rows.flatten(0, -2))
    return x.view(*rows.shape[:-1], -1)


def attend(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Queries float32 [B, N, T, H], and keys and values as `keys_values` made them → [B, N, T, H].

    What a query finds does not depend on how many there are beside it, up to `MOST_QUERIES`.
    """
    if q.shape[2] > MOST_QUERIES:
        k, v = in_bfloat16(keys, values)
        return F.scaled_dot_product_attention(q.to(k.dtype), k, v).to(q.dtype)
    scores = weighted_sums(keys, q * q.shape[3] ** -0.5)
    return weighted_sums(values, scores.softmax(dim=-1))


def weighted_sums(rows: Tensor, weights: Tensor) -> Tensor:
    """Sums of the S rows, uint8 [B, N, S, W + TAIL], with T sets of weights, float32 [B, N, T, S] → [B, N, T, W]."""
    table = rows.flatten(0, 2)
    numbers, ends = _bags(rows.shape[0] * rows.shape[1], rows.shape[2])
    sums = [
        torch.ops.quantized.embedding_bag_byte_rowwise_offsets.default(
            table, numbers, ends, False, 0, False, each.reshape(-1), None, True
        )
        for each in weights.unbind(2)
    ]
    whole = sums[0] if len(sums) == 1 else torch.stack(sums, dim=1)
    return whole.view(*weights.shape[:3], -1)


@lru_cache(maxsize=16)  # rows that end one after another ask for as many
def _bags(count: int, size: int) -> tuple[Tensor, Tensor]:
    """The numbers of all rows of so many bags of one size, and where each bag begins and ends among them."""
    return torch.arange(count * size, dtype=torch.int32), torch.arange(0, count * size + 1, size, dtype=torch.int32)


def in_bfloat16(keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """The keys and values [B, N, F, H] themselves."""
    return unrounded(keys).to(torch.bfloat16).mT, unrounded(values).to(torch.bfloat16)


@cache
def works() -> bool:
    """Whether PyTorch has these sums here, which are none of its public ones."""
    x, weights = torch.linspace(-1, 2, 6 * 64).view(1, 2, 3, 64), torch.tensor([0.5, -1.0, 0.25]).expand(1, 2, 2, 3)
    return succeeds(lambda: torch.allclose(weighted_sums(rounded(x), weights), weights @ x, rtol=1e-2, atol=1e-2))
