"""The decode step of a Gemma decoder through fused kernels: what `GemmaDecoder` computes for one token a row.

With few rows a step is the reading of the weights, and everything between two products costs more in starts than in
work: norms and additions, rotations, the cache and its attention, and GELU are five kernels a layer.
"""

from typing import Any

from torch import Tensor, nn

from mmcli.engine.kv_cache import KVCache
from mmcli.layers.kernels.gated_gelu import gated_gelu
from mmcli.layers.kernels.matvec import product
from mmcli.layers.kernels.residual_norm import residual_norm
from mmcli.layers.kernels.single_query import single_query


def step(decoder: Any, x: Tensor, angles: tuple[Tensor, Tensor], masks: list[Tensor], cache: KVCache) -> Tensor:
    """Vectors [B, 1, D] and the mask of every layer, as numbers to add → normed hidden states [B, 1, D]."""
    epsilon = decoder.config.norm_epsilon
    x = x[:, 0].contiguous()
    normed = decoder.layers[0].norm_attention(x)
    after = [layer.norm_attention for layer in decoder.layers[1:]] + [decoder.norm]
    for layer, mask, following in zip(decoder.layers, masks, after, strict=True):
        attention, mlp = layer.attention, layer.mlp
        keys, values = cache.layer(attention.entry)
        qkv = product(normed, attention.qkv)
        y = single_query(qkv, keys, values, angles, mask, cache.cursor, attention.scale, attention.softcap)
        y = product(y, attention.out)
        x, normed = residual_norm(x, y, _scale(layer.norm_attention_out), layer.norm_mlp.scale, epsilon)
        y = product(gated_gelu(mlp.gate_up(normed)), mlp.down)
        x, normed = residual_norm(x, y, _scale(layer.norm_mlp_out), following.scale, epsilon)
    return normed[:, None]


def _scale(norm: Any) -> Tensor | None:
    """That of an outer norm, which Gemma 2 has and Gemma 1 has not."""
    return None if isinstance(norm, nn.Identity) else norm.scale


def fits(decoder: Any) -> bool:
    """Whether the decoder's parts are put together as `step` reads them."""
    return all(
        layer.attention.qkv is not None and layer.mlp.gate_up is not None and layer.norm_mlp.scale is not None
        for layer in decoder.layers
    )
