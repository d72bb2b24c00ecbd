"""The decoder's layers through fused kernels: of a decode step, one token a row, and of a prompt."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmcli.engine.kv_cache import KVCache
from mmcli.layers.attention import attend
from mmcli.layers.kernels.gated import gated
from mmcli.layers.kernels.matvec import product
from mmcli.layers.kernels.placed import placed
from mmcli.layers.kernels.single_query import Norms, single_query
from mmcli.models.gemma3n.kernels import altup
from mmcli.models.gemma3n.kernels.laurel import joined
from mmcli.models.gemma3n.kernels.sparse_gelu import sparse_gelu
from mmcli.models.gemma3n.table import rounded


class Read(NamedTuple):
    """Tokens [R] between two layers."""

    streams: Tensor  # [R, A, D]
    more: Tensor | None = None  # what the layer before adds to all but the active one, before `more_norm`: [R, D]
    more_norm: Any = None

    def finished(self) -> Tensor:
        return self.streams if self.more is None else altup.with_more(self.streams, self.more, self.more_norm)


def run_layers(
    layers: Any,
    read: Read,
    per_layer: Any,
    attend: Callable[[Any, Tensor], Tensor],
    rows: int | None = None,
    side: Any = None,
) -> Read:
    """All tokens through some layers, with every layer's vectors of them, [R, P] each.

    `attend` takes a layer's attention and normed vectors [R, D]. Of a prompt of so many `rows` the last layer goes on
    with the last token of each, for which alone it has a vector, once it has attended for all. Of a step LAUREL's two
    small products run beside attention on the stream `side`: they leave most of the device idle.
    """
    streams, more, more_norm = read
    for layer, row in zip(layers, per_layer, strict=True):
        predicted, normed = altup.predict(layer.altup, streams, more, more_norm, layer.norm_attention)
        low_rank = None if side is None else _beside(side, _low_rank, layer.laurel, normed)
        attended = attend(layer.attention, normed)
        if rows is not None and layer is layers[-1]:
            predicted, normed, attended = (_last(part, rows) for part in (predicted, normed, attended))
        if low_rank is None:
            low_rank = _low_rank(layer.laurel, normed)
        else:
            torch.cuda.current_stream().wait_stream(side)
        x, ready = joined(layer, predicted, normed, attended, low_rank)
        streams, scaled = altup.correct(layer.altup, predicted, x, _mlp(layer.mlp, ready), layer.norm_mlp_out)
        more, more_norm = _per_layer(layer.per_layer, scaled, row), layer.per_layer.norm
    return Read(streams, more, more_norm)


def _low_rank(laurel: Any, x: Tensor) -> Tensor:
    """LAUREL's part of normed vectors, before its norm."""
    return product(product(x, laurel.left), laurel.right)


def _beside(side: Any, work: Callable[..., Tensor], *given: Any) -> Tensor:
    """`work(*given)` on the stream `side`, after all that the current one has been given so far, which has to wait for
    it: a branch of the graph that is recorded.

    As the two wait for each other each time, neither uses memory again that the other one still needs. (After the last
    time only the graph's own memory is safe, so it is for recordings.)
    """
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        return work(*given)


def read_step(decoder: Any, streams: Tensor, per_layer: Any, angles: Any, masks: Any, cache: KVCache) -> Tensor:
    """Streams [B, 1, A, D] and every layer's vectors of the token, [B, 1, P] each → streams behind the last layer."""
    attend = partial(_attend, angles=angles, masks=masks, cache=cache)
    read = Read(streams[:, 0].contiguous())
    recording = streams.is_cuda and torch.cuda.is_current_stream_capturing()
    side = torch.cuda.Stream(streams.device) if recording else None
    return run_layers(decoder.layers, read, [row[:, 0] for row in per_layer], attend, side=side).finished()[:, None]


def read_prompt(
    decoder: Any, streams: Tensor, per_layer: Any, angles: Any, masks: Any, cache: KVCache, last: Any, answers: bool
) -> Tensor | None:
    """Streams [B, T, A, D] of a prompt → those of its last tokens [B, 1, A, D] behind the last layer, as
    `Decoder.forward` has it; `last` are the angles and masks of these."""
    rows, owners = len(streams), len(decoder.config.owners)

    def attending(angles: Any, masks: Any) -> Callable[[Any, Tensor], Tensor]:
        def attend(attention: Any, x: Tensor) -> Tensor:
            if not attention.owns:
                y: Tensor = attention(x.view(rows, -1, x.shape[1]), angles, masks, cache)
                return y.flatten(0, 1)
            return _attend_prompt(attention, x, angles, masks, cache)

        return attend

    read = Read(streams.flatten(0, 1))
    every = [row.flatten(0, 1) for row in per_layer[: owners - 1]] + [per_layer[owners - 1][:, -1]]
    read = run_layers(decoder.layers[:owners], read, every, attending(angles, masks), rows)
    if not answers:
        return None
    every = [row[:, -1] for row in per_layer[owners:]]
    read = run_layers(decoder.layers[owners:], read, every, attending(*last))
    return read.finished()[:, None]


def _last(x: Tensor, rows: int) -> Tensor:
    """Of numbers of all tokens [B · T, …] those of the last one of each row [B, …]."""
    return x.unflatten(0, (rows, -1))[:, -1].contiguous()


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
    norms = _norms(attention)
    kept = keys, values, angles[kind], masks[kind], cache.cursor
    y = single_query(qkv, *kept, 1.0, None, window, norms, owns, cache.arrivals)
    return product(y, attention.out)


def _attend_prompt(attention: Any, x: Tensor, angles: Any, masks: Any, cache: KVCache) -> Tensor:
    kind = int(attention.layer.sliding)
    turn, mask = angles[kind], masks[kind]
    room = cache.room(attention.entry, turn[0].shape[2])
    assert room is not None  # whoever reads a prompt appends it
    q = placed(attention.qkv(x), *room, turn, _norms(attention))
    seen = mask.shape[-1]
    keys, values = (part[:, :, -seen:] for part in cache.layer(attention.entry))
    y: Tensor = attention.out(attend(q, keys, values, mask, 1.0).transpose(1, 2).flatten(0, 1).flatten(1))
    return y


def _norms(attention: Any) -> Norms:
    return Norms(
        attention.norm_q.weight, attention.norm_k.weight if attention.owns else None, attention.config.norm_epsilon
    )


def _mlp(mlp: Any, x: Tensor) -> Tensor:
    gate_up = product(x, mlp.gate_up)
    if mlp.layer.sparsity:
        return product(sparse_gelu(gate_up, rounded(mlp.layer.deviations, x.dtype)), mlp.down)
    return product(gated(gate_up, "gelu"), mlp.down)


def _per_layer(part: Any, x: Tensor, row: Tensor) -> Tensor:
    """What the gate makes of the layer's own vector, before its norm."""
    return product(product(x, part.gate, "gelu_tanh", times=row), part.out)
