"""What encoder-decoders share: attention of a sequence to itself, and of a text to what an encoder made, and an MLP."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcli.engine.device import has_tiles
from mmcli.engine.kv_cache import KVCache
from mmcli.layers import int8_attention
from mmcli.layers.attention import attend, attend_by_head
from mmcli.layers.fusing import Fusable
from mmcli.layers.linear import stack

PIECE = 384  # places of a sequence whose numbers inside a layer, 3 MB where it is 2048 wide, stay near a core


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[B, T, D] → [B, N, T, H], a view."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def split_three(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values [B, T, 3D] → [B, N, T, H] each, views."""
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    return q, k, v


def join_heads(x: Tensor) -> Tensor:
    """[B, N, T, H] → [B, T, D]."""
    return x.transpose(1, 2).flatten(2)


def by_frames(function: Callable[..., Tensor], *inputs: Tensor, most: int | None = None) -> Tensor:
    """A function of [B, T, …] that takes every frame for itself; on a CPU few frames at a time, by default `PIECE`.

    What one operation leaves is then still in the core's cache when the next one reads it. Pieces are as good as equal:
    products of few frames are slower.
    """
    most, frames = most or PIECE, inputs[0].shape[1]
    if inputs[0].device.type != "cpu" or frames <= most:
        return function(*inputs)
    size = -(-frames // -(-frames // most))
    pieces = zip(*(x.split(size, dim=1) for x in inputs), strict=True)
    return torch.cat([function(*piece) for piece in pieces], dim=1)


class Projections(Fusable):
    """The weights of an attention, as checkpoints store them; whether keys have a bias, a family tells."""

    def __init__(self, width: int, heads: int, key_bias: bool = False):
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width, bias=key_bias)
        self.v = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.short: torch.dtype | None = None  # a shorter type for what is costly: see the subclasses


class SelfAttention(Projections):
    """Attention of a sequence to itself; after loading, queries, keys and values come from one product.

    `short` is the type of `attend`.
    """

    def __init__(self, width: int, heads: int, key_bias: bool = False):
        super().__init__(width, heads, key_bias)
        self.qkv: nn.Module | None = None

    def fuse(self) -> None:
        """Stack q, k and v; where k has no bias, it is zero."""
        self.qkv = stack(self.q, self.k, self.v)
        del self.q, self.k, self.v

    def forward(self, x: Tensor, mask: Tensor | None = None, cache: KVCache | None = None, layer: int = 0) -> Tensor:
        """x [B, T, D] → [B, T, D] over everything in the cache as well, `mask` [B, 1, T, S] or None for all.

        The mask of a single token on a CPU may be what `additive` makes of it.
        """
        q, k, v = split_three(self.project(x), self.heads)
        if cache is not None:
            k, v = cache.append(layer, k, v)
        if x.device.type == "cpu" and x.shape[1] == 1:  # fused kernels lose there
            return self.out(join_heads(attend(q, k, v, mask, q.shape[-1] ** -0.5)))
        return self.out(join_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=mask)))

    def project(self, x: Tensor) -> Tensor:
        """x [B, T, D] → queries, keys and values [B, T, 3D]."""
        return torch.cat((self.q(x), self.k(x), self.v(x)), dim=-1) if self.qkv is None else self.qkv(x)

    def attend(self, qkv: Tensor) -> Tensor:
        """Queries, keys and values [B, T, 3D] → what every frame found in all of them [B, T, D], before `out`."""
        q, k, v = split_three(qkv, self.heads)
        if self.short is not None and not has_tiles():
            return join_heads(attend_by_head(q, k, v, q.shape[-1] ** -0.5))
        return join_heads(F.scaled_dot_product_attention(q, k, v))


class CrossAttention(Projections):
    """Attention of a text to what an encoder made, whose keys and values are computed once.

    `short` is the type of these, or `integers` tells that they are in int8: they are read at every step.
    """

    def __init__(self, width: int, heads: int, key_bias: bool = False):
        super().__init__(width, heads, key_bias)
        self.kv: nn.Module | None = None
        self.integers = False

    def fuse(self) -> None:
        """Stack k and v."""
        self.kv = stack(self.k, self.v)
        del self.k, self.v

    def keys_values(self, states: Tensor) -> tuple[Tensor, ...]:
        """Encoder states [B, F, D] → keys and values [B, N, F, H], or what `int8_attention` makes of them."""
        if self.integers:
            return int8_attention.keys_values(self._project, states, self.heads, PIECE)
        kv = by_frames(lambda piece: self._shortened(self._project(piece)), states)
        return tuple(split_heads(part, self.heads) for part in kv.chunk(2, dim=-1))

    def _project(self, states: Tensor) -> Tensor:
        return torch.cat((self.k(states), self.v(states)), dim=-1) if self.kv is None else self.kv(states)

    def _shortened(self, x: Tensor) -> Tensor:
        return x.to(self.short or x.dtype)

    def forward(self, x: Tensor, keys_values: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        """x [R, T, D] with R a multiple of the B rows of `keys_values`: neighbouring rows share them (beams).

        `mask` [B, 1, 1, F] tells where there is something to attend to; None: everywhere. There is none with integers.
        """
        q, (k, v) = split_heads(self.q(x), self.heads), keys_values
        rows, _, tokens, width = q.shape
        if rows != k.shape[0]:  # the beams of one row become further queries of it
            q = q.unflatten(0, (k.shape[0], -1)).transpose(1, 2).flatten(2, 3)
        if self.integers:
            y = int8_attention.attend(q, k, v)
        elif q.shape[2] == 1:  # fused kernels gain nothing for a single query
            scores = (q.to(k.dtype) * width**-0.5) @ k.mT
            scores = scores if mask is None else scores.masked_fill(~mask, -torch.inf)
            y = scores.softmax(dim=-1) @ v
        else:
            y = F.scaled_dot_product_attention(q.to(k.dtype), k, v, attn_mask=mask)
        if rows != k.shape[0]:
            y = y.unflatten(2, (-1, tokens)).transpose(1, 2).flatten(0, 1)
        return self.out(join_heads(y).to(x.dtype))

    def scores(self, x: Tensor, keys_values: Sequence[Tensor], heads: list[int]) -> Tensor:
        """Where some heads look, before the softmax: x [B, T, D] → float32 [B, heads, T, F]."""
        q = split_heads(self.q(x), self.heads)[:, heads].float()
        own = [part[:, heads] for part in keys_values]
        k = int8_attention.in_bfloat16(*own)[0] if self.integers else own[0]
        return q @ k.float().mT * q.shape[-1] ** -0.5


class MLP(nn.Module):
    """Feed-forward with the exact GELU: [B, T, D] → [B, T, D]."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.up = nn.Linear(width, inner)
        self.down = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x)))
