"""Attention over a mask, and the masks of prefix language models."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmcli.engine.kv_cache import Groups
from mmcli.layers import kernels

# Scores held at once where they are written out: images of 896 pixels make prefixes of over 4096 tokens.
SCORES = 1 << 26
SCORES_ON_CPU = 1 << 21  # so many stay in its cache
SCORES_OF_HEAD = 3 << 17  # … of bfloat16 in that of a core


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, softcap: float | None = None) -> Tensor:
    """Softmax attention: q [B, N, T, H], k and v [B, K, S, H], mask [B, 1, T, S] → [B, N, T, H].

    The mask is True where a query may attend, or what `additive` makes of that; every query must attend to at least one
    key. None: every query to every key. With `softcap` the scores pass through c·tanh(s / c) before the mask (Gemma 2,
    arXiv:2408.00118); PyTorch's fused kernels cannot do that, so where ours is not to be had it is written out.
    """
    if mask is not None and kernels.attends(q, k, v, mask, softcap):
        from mmcli.layers.kernels.several_queries import several_queries

        return several_queries(q, k, v, mask, scale, softcap)
    # A single query loses by fused kernels: on a GPU cuDNN plans its own anew for every length of the cache; on a CPU
    # they take up to twice the time, and from 500 keys on their digits depend on the number of threads. A CPU's are for
    # float32: in bfloat16 they take twice as long as what is written out in blocks.
    on_cpu = q.device.type == "cpu"
    worthwhile = q.shape[2] > 1 and (q.dtype == torch.float32 or not on_cpu)
    if softcap is None and worthwhile:
        if q.shape[1] != k.shape[1] and q.requires_grad and q.device.type == "cuda":
            # With a mask and gradients no fused kernel takes groups of heads: all scores would be written out.
            k, v = (part.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for part in (k, v))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=q.shape[1] != k.shape[1])
    if mask is None:
        mask = torch.ones(1, 1, 1, k.shape[2], dtype=torch.bool, device=q.device)
    block = max(1, (SCORES_ON_CPU if on_cpu else SCORES) // (q.shape[0] * q.shape[1] * k.shape[2]))
    if q.shape[2] <= block:
        return _written_out(q, k, v, mask, scale, softcap)
    parts = zip(q.split(block, dim=2), mask.expand(-1, -1, q.shape[2], -1).split(block, dim=2), strict=True)
    return torch.cat([_written_out(part, k, v, seen, scale, softcap) for part, seen in parts], dim=2)


def attend_by_head(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """`attend` without a mask, in blocks whose scores are made and used in the processor's cache: the result has
    [B, T, N, H] in memory.

    On CPUs with native bfloat16 this beats PyTorch's fused kernel by half; on those that multiply tiles of it (AMX) the
    kernel takes half as long.
    """
    y = torch.empty_like(q.transpose(1, 2)).transpose(1, 2)
    # A head's rows in one piece: products of rows that lie far apart take a tenth longer.
    q, k, v = torch.mul(q, scale, out=q.new_empty(q.shape)), k.contiguous(), v.contiguous()
    block, group = max(1, SCORES_OF_HEAD // k.shape[2]), q.shape[1] // k.shape[1]
    scores = q.new_empty(min(block, q.shape[2]), k.shape[2])  # in one place, from beginning to end
    for row in range(q.shape[0]):
        for head in range(q.shape[1]):
            keys, values = k[row, head // group].T, v[row, head // group]
            for asked, found in zip(q[row, head].split(block), y[row, head].split(block), strict=True):
                weights = scores[: len(asked)]
                torch.mm(asked, keys, out=weights)
                torch.softmax(weights, dim=-1, out=weights)
                torch.mm(weights, values, out=found)
    return y


def attend_shared(
    q: Tensor,
    prefix: tuple[Tensor, Tensor],
    own: tuple[Tensor, Tensor],
    mask: Tensor,
    scale: float,
    softcap: float | None = None,
    groups: Groups | None = None,
) -> Tensor:
    """`attend` for rows whose first keys are common to neighbours: q [R, N, T, H], prefix k and v [B, K, P, H] with R a
    multiple of B, own k and v [R, K, S, H], mask [R, 1, T, P + S] → [R, N, T, H].

    The queries of neighbours read their prefix as one block, so it is neither copied nor read twice; `groups` put those
    together that are no neighbours. A prefix in a shorter type is met in that.
    """
    (rows, heads, queries, width), (shared, key_heads, length) = q.shape, prefix[0].shape[:3]
    most = (rows if groups is None else len(groups.rows)) // shared  # rows of a prefix

    def block(x: Tensor) -> Tensor:  # [R, N, T, …] → [B, K, R/B · N/K · T, …]
        x = x.to(prefix[0].dtype) if groups is None else x.to(prefix[0].dtype)[groups.rows]
        return x.reshape(shared, most, key_heads, -1, x.shape[-1]).transpose(1, 2).flatten(2, 3)

    def unblock(x: Tensor) -> Tensor:
        parts = x.view(shared, key_heads, most, -1, x.shape[-1]).transpose(1, 2)
        parts = parts.reshape(-1, heads, queries, x.shape[-1]).to(q.dtype)
        return parts if groups is None else parts[groups.places]

    common = unblock(block(q) @ prefix[0].mT)
    alone = (q.reshape(rows, key_heads, -1, width) @ own[0].mT).view(rows, heads, queries, -1)
    scores = torch.cat((common, alone), -1)
    if softcap is not None:
        scores, scale = torch.tanh(scores * (scale / softcap)), softcap
    bias = additive(mask, q.dtype) if mask.dtype == torch.bool else mask
    weights = torch.add(bias, scores, alpha=scale).softmax(dim=-1)
    common, alone = weights[..., :length], weights[..., length:]
    alone = alone.reshape(rows, key_heads, -1, own[0].shape[2]) @ own[1]
    return unblock(block(common) @ prefix[1]) + alone.view(rows, heads, queries, width)


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask (True = may attend) as numbers to add to the scores."""
    bias = kernels.additive(mask, dtype)
    return bias if bias is not None else torch.where(mask, 0.0, torch.finfo(dtype).min).to(dtype)


def _written_out(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float, softcap: float | None) -> Tensor:
    """`attend` for a block of queries, without fused kernels, in as few operations as it takes."""
    batch, heads, queries, width = q.shape
    bias = additive(mask, q.dtype) if mask.dtype == torch.bool else mask
    scores = q.reshape(batch, k.shape[1], -1, width) @ k.mT  # heads that share a key head read it as one block
    if softcap is not None:
        scores, scale = torch.tanh(scores * (scale / softcap)), softcap
    scores = torch.add(bias, scores.view(batch, heads, queries, -1), alpha=scale)
    weights = scores.softmax(dim=-1)  # sums in float32, whatever the type
    return (weights.view(batch, k.shape[1], -1, k.shape[2]) @ v).view(batch, heads, queries, width)


def prefix_mask(valid: Tensor) -> Tensor:
    """Mask of a prefix that reads itself in both directions: valid [B, T] → [B, 1, T, T].

    Padding is never attended to, and itself attends only to itself, so that no row of the softmax is empty.
    """
    own = torch.eye(valid.shape[1], dtype=torch.bool, device=valid.device)
    return (valid[:, None, None, :] & valid[:, None, :, None]) | own


def prefix_positions(valid: Tensor) -> Tensor:
    """Positions counted from 0 at each row's first valid token: valid [B, T] → [B, T]."""
    return (valid.long().cumsum(dim=1) - 1).clamp(min=0)
