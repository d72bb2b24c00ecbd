"""What encoder-decoders share: attention of a sequence to itself, and of a text to what an encoder made, and an MLP."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcli.engine.kv_cache import KVCache
from mmcli.layers.attention import attend_by_head
from mmcli.layers.fusing import Fusable
from mmcli.layers.linear import stack

PIECE = 256  # places of a sequence whose numbers inside a layer, 2 MB where it is 2048 wide, stay in a core's cache


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[B, T, D] → [B, N, T, H], a view."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """[B, N, T, H] → [B, T, D]."""
    return x.transpose(1, 2).flatten(2)


def by_frames(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """A function of [B, T, …] that takes every frame for itself; on a CPU few frames at a time.

    What one operation leaves is then still in the core's cache when the next one reads it.
    """
    if inputs[0].device.type != "cpu" or inputs[0].shape[1] <= PIECE:
        return function(*inputs)
    pieces = zip(*(x.split(PIECE, dim=1) for x in inputs), strict=True)
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
        """x [B, T, D] → [B, T, D] over everything in the cache as well, `mask` [B, 1, T, S] or None for all."""
        q, k, v = (split_heads(part, self.heads) for part in self.project(x).chunk(3, dim=-1))
        if cache is not None:
            k, v = cache.append(layer, k, v)
        return self.out(join_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=mask)))

    def project(self, x: Tensor) -> Tensor:
        """x [B, T, D] → queries, keys and values [B, T, 3D]."""
        return torch.cat((self.q(x), self.k(x), self.v(x)), dim=-1) if self.qkv is None else self.qkv(x)

    def attend(self, qkv: Tensor) -> Tensor:
        """Queries, keys and values [B, T, 3D] → what every frame found in all of them [B, T, D], before `out`."""
        q, k, v = (split_heads(part, self.heads) for part in qkv.chunk(3, dim=-1))
        if self.short is not None:
            return join_heads(attend_by_head(q, k, v, q.shape[-1] ** -0.5))
        return join_heads(F.scaled_dot_product_attention(q, k, v))


class CrossAttention(Projections):
    """Attention of a text to what an encoder made, whose keys and values are computed once.

    `short` is the type of these: they are read at every step.
    """

    def __init__(self, width: int, heads: int, key_bias: bool = False):
        super().__init__(width, heads, key_bias)
        self.kv: nn.Module | None = None

    def fuse(self) -> None:
        """Stack k and v."""
        self.kv = stack(self.k, self.v)
        del self.k, self.v

    def keys_values(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Encoder states [B, F, D] → keys and values [B, N, F, H]."""
        parts = by_frames(self._project, states).chunk(2, dim=-1)
        k, v = (split_heads(part, self.heads) for part in parts)
        return k, v

    def _project(self, states: Tensor) -> Tensor:
        kv = torch.cat((self.k(states), self.v(states)), dim=-1) if self.kv is None else self.kv(states)
        return kv.to(self.short or kv.dtype)

    def forward(self, x: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """x [R, T, D] with R a multiple of the B rows of k and v: neighbouring rows share them (beams).

        `mask` [B, 1, 1, F] tells where there is something to attend to; None: everywhere.
        """
        q = split_heads(self.q(x), self.heads).to(k.dtype)
        rows, _, tokens, width = q.shape
        if rows != k.shape[0]:  # the beams of one row become further queries of it
            q = q.unflatten(0, (k.shape[0], -1)).transpose(1, 2).flatten(2, 3)
        if q.shape[2] == 1:  # fused kernels gain nothing for a single query
            scores = (q * width**-0.5) @ k.mT
            scores = scores if mask is None else scores.masked_fill(~mask, -torch.inf)
            y = scores.softmax(dim=-1) @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        if rows != k.shape[0]:
            y = y.unflatten(2, (-1, tokens)).transpose(1, 2).flatten(0, 1)
        return self.out(join_heads(y).to(x.dtype))

    def scores(self, x: Tensor, k: Tensor, heads: list[int]) -> Tensor:
        """Where some heads look, before the softmax: x [B, T, D], k [B, N, F, H] → float32 [B, heads, T, F]."""
        q = split_heads(self.q(x), self.heads)[:, heads].float()
        return q @ k[:, heads].float().mT * q.shape[-1] ** -0.5


class MLP(nn.Module):
    """Feed-forward with the exact GELU: [B, T, D] → [B, T, D]."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.up = nn.Linear(width, inner)
        self.down = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x)))
