"""The decode step through fused kernels: all layers, for one token a row."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from mmcli.engine.kv_cache import KVCache
from mmcli.layers.kernels.matvec import product
from mmcli.layers.kernels.residual_layer_norm import residual_layer_norm
from mmcli.layers.kernels.single_query import Norms, single_query


def run_layers(
    layers: Sequence[Any], last: Any, x: Tensor, angles: tuple[Tensor, Tensor], mask: Tensor, cache: KVCache
) -> Tensor:
    """Vectors [B, 1, D] → hidden states [B, 1, D] behind the `last` norm.

    The attention of all `layers` is arranged; `mask` [B, 1, 1, S] are numbers to add.
    """
    x = x[:, 0].contiguous()
    normed = layers[0].norm_attention(x)
    after = [layer.norm_attention for layer in layers[1:]] + [last]
    for layer, following in zip(layers, after, strict=True):
        norm = layer.norm_mlp
        x, normed = residual_layer_norm(
            x, _attend(layer.attention, normed, angles, mask, cache), norm.weight, norm.bias, norm.eps
        )
        y = product(product(normed, layer.mlp.up, "relu2"), layer.mlp.down)
        x, normed = residual_layer_norm(x, y, following.weight, following.bias, following.eps)
    return normed[:, None]


def _attend(attention: Any, x: Tensor, angles: tuple[Tensor, Tensor], mask: Tensor, cache: KVCache) -> Tensor:
    query, key, norms = attention.norm_q, attention.norm_k, None
    if attention.config.head_norms:
        norms = Norms(query.weight, key.weight, query.eps, query.bias, key.bias)
    keys, values = cache.layer(attention.layer)
    scale = attention.config.head_width**-0.5
    y = single_query(product(x, attention.qkv), keys, values, angles, mask, cache.cursor, scale, norms=norms)
    return product(y, attention.out)
