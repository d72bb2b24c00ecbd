"""The layers through fused kernels: of a decode step, one token a row, and of a prompt."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from mmcli.engine.kv_cache import KVCache
from mmcli.layers.attention import attend
from mmcli.layers.kernels.matvec import product
from mmcli.layers.kernels.placed import placed
from mmcli.layers.kernels.residual_layer_norm import residual_layer_norm
from mmcli.layers.kernels.single_query import Norms, single_query


def run_layers(
    layers: Sequence[Any],
    last: Any,
    x: Tensor,
    angles: tuple[Tensor, Tensor],
    mask: Tensor,
    cache: KVCache,
    last_only: bool,
) -> Tensor:
    """Vectors [B, T, D] → hidden states behind the `last` norm, [B, T, D] or with `last_only` [B, 1, D].

    The attention of all `layers` is arranged; `mask` is as for `attend`, or of a step, [B, 1, 1, S], numbers to add.
    """
    (rows, count, width), x = x.shape, x.flatten(0, 1).contiguous()
    normed = layers[0].norm_attention(x)
    after = [layer.norm_attention for layer in layers[1:]] + [last]
    for layer, following in zip(layers, after, strict=True):
        norm = layer.norm_mlp
        if count == 1:
            y = _attend(layer.attention, normed, angles, mask, cache)
        else:
            ends = last_only and layer is layers[-1]
            y = _attend_prompt(layer.attention, normed, angles, mask, cache, ends)
            x = x.view(rows, count, width)[:, -1].contiguous() if ends else x
        x, normed = residual_layer_norm(x, y, norm.weight, norm.bias, norm.eps)
        y = product(product(normed, layer.mlp.up, "relu2"), layer.mlp.down)
        x, normed = residual_layer_norm(x, y, following.weight, following.bias, following.eps)
    return normed.view(rows, -1, width)


def _attend(attention: Any, x: Tensor, angles: tuple[Tensor, Tensor], mask: Tensor, cache: KVCache) -> Tensor:
    keys, values = cache.layer(attention.layer)
    qkv, scale, norms = product(x, attention.qkv), attention.config.head_width**-0.5, _norms(attention)
    y = single_query(qkv, keys, values, angles, mask, cache.cursor, scale, norms=norms, arrivals=cache.arrivals)
    return product(y, attention.out)


def _attend_prompt(
    attention: Any, x: Tensor, angles: tuple[Tensor, Tensor], mask: Tensor, cache: KVCache, last_only: bool
) -> Tensor:
    """Of normed vectors [B · T, D], or with `last_only` of the last of each row, [B, D]."""
    room = cache.room(attention.layer, angles[0].shape[2])
    assert room is not None  # rows that share a prefix are not read here
    q = placed(attention.qkv(x), *room, angles, _norms(attention))
    q, mask = (q[:, :, -1:], mask[:, :, -1:]) if last_only else (q, mask)
    y = attend(q, *cache.layer(attention.layer), mask, attention.config.head_width**-0.5)
    return product(y.transpose(1, 2).flatten(0, 1).flatten(1), attention.out)


def _norms(attention: Any) -> Norms | None:
    query, key = attention.norm_q, attention.norm_k
    return Norms(query.weight, key.weight, query.eps, query.bias, key.bias) if attention.config.head_norms else None
