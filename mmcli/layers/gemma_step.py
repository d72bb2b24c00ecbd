"""The decode step of a Gemma decoder through fused kernels: what `GemmaDecoder` computes for one token a row.

With few rows a step is the reading of the weights, and everything between two products costs more in starts than in
work. So norms, rotations, the cache, GELU and additions are done by seven kernels a layer (nine in Gemma 2) beside or
within the products.
"""

from typing import Any

from torch import Tensor, nn

from mmcli.engine.kv_cache import KVCache
from mmcli.layers.kernels import FEW_ROWS
from mmcli.layers.kernels.gated_gelu import gated_gelu
from mmcli.layers.kernels.matvec import matvec
from mmcli.layers.kernels.residual_norm import residual_norm
from mmcli.layers.kernels.single_query import single_query


def step(decoder: Any, x: Tensor, angles: tuple[Tensor, Tensor], masks: list[Tensor], cache: KVCache) -> Tensor:
    """Vectors [B, 1, D] and the mask of every layer, as numbers to add → normed hidden states [B, 1, D]."""
    read = _read_few if len(x) <= FEW_ROWS else _read_many
    return read(decoder, x[:, 0].contiguous(), angles, masks, cache)[:, None]


def _read_few(decoder: Any, x: Tensor, angles: tuple[Tensor, Tensor], masks: list[Tensor], cache: KVCache) -> Tensor:
    """Norms, activation and additions within the products; Gemma 2's outer norms stand between two of them."""
    sandwich, epsilon = decoder.config.sandwich_norms, decoder.config.norm_epsilon
    normed = None
    for layer, mask, after in _layers(decoder, masks):
        attention, mlp = layer.attention, layer.mlp
        if normed is None:
            qkv = _product(x, attention.qkv, norm=layer.norm_attention.scale, epsilon=epsilon)
        else:
            qkv = _product(normed, attention.qkv)
        y = _attend(attention, qkv, angles, mask, cache)
        if sandwich:
            y = _product(y, attention.out)
            x, normed = residual_norm(x, y, layer.norm_attention_out.scale, layer.norm_mlp.scale, epsilon)
            y = _product(_product(normed, mlp.gate_up, gated=True), mlp.down)
            x, normed = residual_norm(x, y, layer.norm_mlp_out.scale, after.scale, epsilon)
        else:
            x = _product(y, attention.out, residual=x)
            inner = _product(x, mlp.gate_up, gated=True, norm=layer.norm_mlp.scale, epsilon=epsilon)
            x = _product(inner, mlp.down, residual=x)
    return decoder.norm(x) if normed is None else normed


def _read_many(decoder: Any, x: Tensor, angles: tuple[Tensor, Tensor], masks: list[Tensor], cache: KVCache) -> Tensor:
    """The products are the library's; kernels do the rest."""
    sandwich, epsilon = decoder.config.sandwich_norms, decoder.config.norm_epsilon
    normed = decoder.layers[0].norm_attention(x)
    for layer, mask, after in _layers(decoder, masks):
        attention, mlp = layer.attention, layer.mlp
        y = attention.out(_attend(attention, attention.qkv(normed), angles, mask, cache))
        inner = layer.norm_attention_out.scale if sandwich else None
        x, normed = residual_norm(x, y, inner, layer.norm_mlp.scale, epsilon)
        y = mlp.down(gated_gelu(mlp.gate_up(normed)))
        inner = layer.norm_mlp_out.scale if sandwich else None
        x, normed = residual_norm(x, y, inner, after.scale, epsilon)
    return normed


def _layers(decoder: Any, masks: list[Tensor]) -> Any:
    """Every layer, its mask, and the norm that what it makes goes through next."""
    after = [layer.norm_attention for layer in decoder.layers[1:]] + [decoder.norm]
    return zip(decoder.layers, masks, after, strict=True)


def _product(x: Tensor, linear: nn.Module, **settings: Any) -> Tensor:
    return matvec(x, linear.get_parameter("weight"), **settings)


def _attend(attention: Any, qkv: Tensor, angles: tuple[Tensor, Tensor], mask: Tensor, cache: KVCache) -> Tensor:
    keys, values = cache.layer(attention.entry)
    return single_query(qkv, keys, values, angles, mask, cache.cursor, attention.scale, attention.softcap)


def fits(decoder: Any) -> bool:
    """Whether the decoder's weights are as `step` reads them: fused, and not quantised."""
    return all(
        type(layer.attention.qkv) is nn.Linear
        and type(layer.mlp.gate_up) is nn.Linear
        and layer.norm_mlp.scale is not None
        for layer in decoder.layers
    )
