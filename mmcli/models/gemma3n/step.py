"""The decode step through fused kernels: what the decoder's layers compute for one token a row."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from mmcli.engine.kv_cache import KVCache
from mmcli.layers.kernels.gated import gated
from mmcli.layers.kernels.matvec import matvec, product
from mmcli.layers.kernels.single_query import Norms, single_query
from mmcli.models.gemma3n.kernels import altup
from mmcli.models.gemma3n.kernels.laurel import joined
from mmcli.models.gemma3n.kernels.sparse_gelu import sparse_gelu
from mmcli.models.gemma3n.table import rounded


def run_layers(decoder: Any, streams: Tensor, per_layer: Any, angles: Any, masks: Any, cache: KVCache) -> Tensor:
    """Streams [B, 1, A, D] and every layer's vectors of the token, [B, 1, P] each → streams behind the last layer."""
    streams = streams[:, 0].contiguous()
    more: Tensor | None = None  # what the layer before adds to the streams, before `more_norm`
    more_norm: Any = None
    for layer, row in zip(decoder.layers, per_layer, strict=True):
        predicted, normed = altup.predict(layer.altup, streams, more, more_norm, layer.norm_attention)
        attended = _attend(layer.attention, normed, angles, masks, cache)
        low_rank = product(product(normed, layer.laurel.left), layer.laurel.right)
        x, ready = joined(layer, predicted, normed, attended, low_rank)
        streams, scaled = altup.correct(layer.altup, predicted, x, _mlp(layer.mlp, ready), layer.norm_mlp_out)
        more, more_norm = _per_layer(layer.per_layer, scaled, row[:, 0]), layer.per_layer.norm
    return (streams if more is None else altup.with_more(streams, more, more_norm))[:, None]


def fits(decoder: Any) -> bool:
    """Whether the decoder's parts are put together as `run_layers` reads them, and kernels can hold its streams."""
    streams = decoder.config.streams
    return streams & (streams - 1) == 0 and all(
        layer.mlp.gate_up is not None
        and layer.altup.shrink == 1
        and (layer.attention.qkv is not None or not layer.attention.owns)
        for layer in decoder.layers
    )


def _attend(attention: Any, x: Tensor, angles: Any, masks: Any, cache: KVCache) -> Tensor:
    kind, owns = int(attention.layer.sliding), attention.owns
    qkv = product(x, attention.qkv if owns else attention.q)
    keys, values = cache.layer(attention.entry)
    window = attention.config.window if kind else 0
    norms = Norms(attention.norm_q.weight, attention.norm_k.weight if owns else None, attention.config.norm_epsilon)
    y = single_query(qkv, keys, values, angles[kind], masks[kind], cache.cursor, 1.0, None, window, norms, owns)
    return product(y, attention.out)


def _mlp(mlp: Any, x: Tensor) -> Tensor:
    gate_up = product(x, mlp.gate_up)
    if mlp.layer.sparsity:
        return product(sparse_gelu(gate_up, rounded(mlp.layer.deviations, x.dtype)), mlp.down)
    return product(gated(gate_up, "gelu"), mlp.down)


def _per_layer(part: Any, x: Tensor, row: Tensor) -> Tensor:
    """What the gate makes of the layer's own vector, before its norm."""
    if len(x) == 1 and type(part.gate) is nn.Linear:
        return product(matvec(x, part.gate.weight, times=row), part.out)
    return product(F.gelu(part.gate(x), approximate="tanh") * row, part.out)
