"""The layers of Gemma- and Llama-type decoders through fused kernels: of a step, one token a row, and of a prompt.

With few rows a step is the reading of the weights, and everything between two products costs more in starts than in
work: norms and additions, rotations, the cache and its attention, and the activation are five kernels a layer. With one
row and weights in integers the norm between attention and the MLP is part of both products (`unnormed.py`). Of a
prompt's many rows norms and additions are one reading and one writing instead of five.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, TypeGuard

from torch import Tensor, nn

from mmcli.engine.kv_cache import KVCache
from mmcli.layers.attention import attend
from mmcli.layers.gated_mlp import GatedMLP
from mmcli.layers.grouped_query import GroupedQueryAttention
from mmcli.layers.kernels import MOST_ROWS, few_rows, matrix_row, quantised, quantised_rows
from mmcli.layers.kernels.gated import gated
from mmcli.layers.kernels.matvec import product
from mmcli.layers.kernels.placed import placed
from mmcli.layers.kernels.residual_norm import norm, residual_norm
from mmcli.layers.kernels.single_query import single_query
from mmcli.layers.kernels.unnormed import Scaled
from mmcli.layers.weight_only import WeightOnlyLinear

EIGHT = 8  # For 260 rows of 16,384 numbers, say, the library's product takes a quarter longer than for 264.


class Product(NamedTuple):
    """A product that is still to be made: vectors [R, K] by a layer."""

    x: Tensor
    linear: nn.Module


class Parts(Protocol):
    """A layer as `run_layers` takes it, with the scales [D] of its norms: the weight of Llama's form, 1 + weight of
    Gemma's."""

    @property
    def mlp(self) -> GatedMLP: ...

    @property
    def before_attention(self) -> Tensor: ...

    @property
    def before_mlp(self) -> Tensor: ...

    @property
    def after_attention(self) -> Tensor | None: ...

    @property
    def after_mlp(self) -> Tensor | None: ...

    @property
    def gates(self) -> tuple[float, float]:
        """What multiplies what each half adds."""
        ...

    @property
    def rows(self) -> Tensor | None:
        """What multiplies each row's [B, 1] of the second half; None: nothing does."""
        ...

    def attend(self, x: Tensor, angles: tuple[Tensor, Tensor], cache: Any, last_only: bool) -> Tensor | Product:
        """The attention of normed vectors [B · T, D], before it is added; with `last_only` that of each row's last
        token, [B, D]."""
        ...


class LayerParts(NamedTuple):
    """A layer with self-attention."""

    attention: GroupedQueryAttention
    mlp: GatedMLP
    mask: Any  # as numbers to add, [B, 1, 1, S]
    before_attention: Tensor
    before_mlp: Tensor
    after_attention: Tensor | None = None  # Gemma 2 has two norms more
    after_mlp: Tensor | None = None
    gates: tuple[float, float] = (1.0, 1.0)
    rows: Tensor | None = None

    @property
    def is_fused(self) -> bool:
        """Whether its weights are put together as `run_layers` reads them."""
        return self.attention.qkv is not None and self.mlp.gate_up is not None

    def attend(self, x: Tensor, angles: tuple[Tensor, Tensor], cache: Any, last_only: bool) -> Tensor | Product:
        own = self.attention
        assert own.qkv is not None
        keys, values = cache.layer(own.entry)
        qkv = product(x, own.qkv)
        after = own.scale, own.softcap
        y = single_query(qkv, keys, values, angles, self.mask, cache.cursor, *after, arrivals=cache.arrivals)
        return Product(y, own.out)


class PromptParts(LayerParts):
    """A layer that reads a prompt, under a mask as `attention.attend` takes it."""

    def attend(self, x: Tensor, angles: tuple[Tensor, Tensor], cache: Any, last_only: bool) -> Tensor:
        own, count = self.attention, angles[0].shape[2]
        room = None if cache is None else cache.room(own.entry, count)
        if room is None:
            y: Tensor = own(x.unflatten(0, (-1, count)), angles, self.mask, cache, last_only)
            return y.flatten(0, 1)
        assert own.qkv is not None
        q = placed(product(x, own.qkv), room[0], room[1], angles)
        keys, values = cache.layer(own.entry)
        q, mask = (q[:, :, -1:], self.mask[:, :, -1:]) if last_only else (q, self.mask)
        y = attend(q, keys, values, mask, own.scale, own.softcap)
        return product(y.transpose(1, 2).flatten(0, 1).flatten(1), own.out)


def run_layers(
    layers: Sequence[Parts],
    last: Tensor,
    x: Tensor,
    angles: tuple[Tensor, Tensor],
    cache: KVCache | None,
    epsilon: float,
    activation: str,
    residual_scale: float = 1.0,
    last_only: bool = False,
) -> Tensor:
    """Vectors [B, T, D] → hidden states [B, T, D] behind the final norm.

    `last` is the scale of that norm, `epsilon` that of all; `activation` is "gelu" or "silu"; `residual_scale`
    multiplies what every half of a layer adds. With `last_only` the last layer gives those of the last tokens alone,
    [B, 1, D].
    """
    (rows, _, width), x = x.shape, x.flatten(0, 1).contiguous()
    normed = norm(x, layers[0].before_attention, epsilon)
    after = [layer.before_attention for layer in layers[1:]] + [last]
    for layer, following in zip(layers, after, strict=True):
        first, second = (gate * residual_scale for gate in layer.gates)
        ends = last_only and layer is layers[-1]
        y = layer.attend(normed, angles, cache, ends)
        if ends:
            x = x.view(rows, -1, width)[:, -1].contiguous()
        x, row = _added(x, y, layer.after_attention, layer.before_mlp, epsilon, first, layer.mlp)
        y = _through_mlp(row, layer.mlp, activation)
        y = y if layer.rows is None else y * layer.rows
        x, normed = residual_norm(x, y, layer.after_mlp, following, epsilon, second)
    return normed.view(rows, -1, width)


def _added(
    x: Tensor, y: Tensor | Product, inner: Tensor | None, outer: Tensor, epsilon: float, alpha: float, mlp: GatedMLP
) -> tuple[Tensor, Tensor | Scaled]:
    """What `residual_norm` computes of x and y, for the MLP, whose first product may be given a norm that lacks its
    factor."""
    if isinstance(y, Tensor):
        return residual_norm(x, y, inner, outer, epsilon, alpha)
    if inner is None and _sums_in_integers(*y) and _sums_in_integers(x, mlp.gate_up):
        assert isinstance(y.linear, WeightOnlyLinear)
        row = matrix_row.added(y.x, y.linear.stored, y.linear.scale, x, outer, epsilon, alpha)
        return row.total, row
    return residual_norm(x, parts(*y), inner, outer, epsilon, alpha)


def _sums_in_integers(x: Tensor, linear: nn.Module | None) -> bool:
    """Whether each number of that product is the sum of one program, in a GPU's integer matrix units."""
    if not isinstance(linear, WeightOnlyLinear) or linear.bias is not None:
        return False
    return quantised_rows(x, linear.stored) and matrix_row.fits_whole(x, linear.stored)


def _through_mlp(x: Tensor | Scaled, mlp: GatedMLP, activation: str) -> Tensor:
    assert mlp.gate_up is not None
    if not isinstance(x, Tensor):
        assert isinstance(mlp.gate_up, WeightOnlyLinear)
        y = matrix_row.gated(x, mlp.gate_up.stored, mlp.gate_up.scale, activation)
        return parts(y, mlp.down)
    if len(x) <= MOST_ROWS:
        return parts(gated_product(x, mlp.gate_up, activation), mlp.down)
    inner = gated(product(x, mlp.gate_up), activation, EIGHT)
    return product(inner, mlp.down)[: len(x)]


def gated_product(x: Tensor, linear: nn.Module, activation: str) -> Tensor:
    """activation(gate) · up of vectors [R, D], by a layer that has the gates in front."""
    if isinstance(linear, WeightOnlyLinear) and linear.bias is None and quantised_rows(x, linear.stored):
        return quantised.gated(x, linear.stored, linear.scale, activation)
    if _is_of_few_rows(linear, x):
        return few_rows.gated(x, linear.weight, activation)
    return gated(product(x, linear), activation)


def _is_of_few_rows(linear: nn.Module, x: Tensor) -> TypeGuard[nn.Linear]:
    """Whether a layer with nothing behind it takes vectors [R, K] by `few_rows`."""
    return type(linear) is nn.Linear and linear.bias is None and few_rows.pays(x, linear.weight)


def parts(x: Tensor, linear: nn.Module) -> Tensor:
    """Vectors [R, K] through a layer, [R, N], or what sums up to that, [S, R, N]: `residual_norm` takes either."""
    if isinstance(linear, WeightOnlyLinear) and linear.bias is None and quantised_rows(x, linear.stored):
        return quantised.parts(x, linear.stored, linear.scale)
    if len(x) >= few_rows.ROWS_OF_PARTS and _is_of_few_rows(linear, x):
        return few_rows.parts(x, linear.weight)
    return product(x, linear)
