"""The decode step through fused kernels: all layers, for one token a row.

Between two products stand norms with their additions, attention to the text, and attention to the audio: five kernels a
layer beside its six products.
"""

from typing import Any

from torch import Tensor, nn

from mmcli.engine.cross_attention import CrossAttentionKV
from mmcli.engine.kv_cache import KVCache
from mmcli.layers.kernels import cross_query, short_query, whole_row
from mmcli.layers.kernels.matvec import product
from mmcli.layers.kernels.residual_layer_norm import residual_layer_norm
from mmcli.layers.kernels.single_query import single_query
from mmcli.models.whisper.kernels.start import start


def read(decoder: Any, tokens: Tensor, cache: KVCache, encoded: CrossAttentionKV) -> Tensor:
    """Read one token a row, tokens [R], into a fixed cache → normed states [R, D]."""
    layers = list(decoder.layers)
    table = decoder.embedding.weight
    x, normed, mask = start(tokens, cache, table, decoder.position, layers[0].norm_attention)
    after = [layer.norm_attention for layer in layers[1:]] + [decoder.norm]
    for number, (layer, following) in enumerate(zip(layers, after, strict=True)):
        own, cross, mlp = layer.attention, layer.cross, layer.mlp
        scale = (x.shape[1] // own.heads) ** -0.5
        y = _to_text(product(normed, own.qkv), cache, number, mask, scale)
        x, normed = _added(x, _out(y, own.out), layer.norm_cross)
        k, v = encoded.layers[number]
        y = _to_audio(product(normed, cross.q), k, v, scale)
        x, normed = _added(x, _out(y, cross.out), layer.norm_mlp)
        x, normed = _added(x, _out(product(normed, mlp.up, "gelu"), mlp.down), following)
    return normed


def _to_text(qkv: Tensor, cache: KVCache, number: int, mask: Tensor, scale: float) -> Tensor:
    keys, values = cache.layer(number)
    if short_query.fits(qkv, keys):
        return short_query.short_query(qkv, keys, values, mask, cache.cursor, scale)
    return single_query(qkv, keys, values, None, mask, cache.cursor, scale, arrivals=cache.arrivals)


def _to_audio(query: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    if cross_query.fits(query, keys):
        return cross_query.cross_query(query, keys, values, scale)
    return single_query(query, keys, values, None, None, None, scale, fresh=False)


def fits(decoder: Any, rows: int, encoded: CrossAttentionKV) -> bool:
    """Whether the kernels can read it: weights put together, a row of audio for each of text, in one layout."""
    layouts = (part.stride(3) == 1 and part.stride(2) == part.shape[3] for pair in encoded.layers for part in pair)
    fused = all(layer.attention.qkv is not None for layer in decoder.layers) and type(decoder.embedding) is nn.Embedding
    return fused and encoded.valid is None and len(encoded.layers[0][0]) == rows and all(layouts)


def _out(y: Tensor, linear: nn.Module) -> Tensor:
    """What is added to the residual stream: of one row all weights are asked for before there is y."""
    if len(y) == 1 and type(linear) is nn.Linear and whole_row.fits(y, linear.weight):
        return whole_row.whole_row(y, linear.weight, linear.bias)
    return product(y, linear)


def _added(x: Tensor, y: Tensor, norm: Any) -> tuple[Tensor, Tensor]:
    return residual_layer_norm(x, y, norm.weight, norm.bias, norm.eps)
