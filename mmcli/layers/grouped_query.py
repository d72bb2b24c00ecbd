"""Self-attention of decoders with grouped keys (Ainslie et al., arXiv:2305.13245) and rotary positions."""

import torch
from torch import Tensor, nn

from mmcli.engine.kv_cache import KVCache
from mmcli.layers.attention import attend, attend_by_head, attend_shared
from mmcli.layers.fusing import Fusable
from mmcli.layers.int8_step import StepInt8Linear
from mmcli.layers.linear import joined, stack
from mmcli.layers.rope import rotate


class GroupedQueryAttention(Fusable):
    """Every key head serves several query heads: [B, T, D] → [B, T, D]."""

    def __init__(
        self,
        entry: int,
        width: int,
        heads: int,
        key_heads: int,
        head_width: int,
        scale: float,
        softcap: float | None = None,
        bias: bool = False,
    ):
        """`entry` is where the cache keeps the layer's keys and values; `bias` is that of queries, keys and values."""
        super().__init__()
        self.entry, self.heads, self.key_heads, self.head_width = entry, heads, key_heads, head_width
        self.scale, self.softcap = scale, softcap
        self.q = nn.Linear(width, heads * head_width, bias=bias)
        self.k = nn.Linear(width, key_heads * head_width, bias=bias)
        self.v = nn.Linear(width, key_heads * head_width, bias=bias)
        self.out = nn.Linear(heads * head_width, width, bias=False)
        self.qkv: nn.Module | None = None
        self.short: torch.dtype | None = None  # a shorter type for attention without a mask

    def fuse(self) -> None:
        """Queries, keys and values come from one product where that pays, as in int8."""
        parts = self.q, self.k, self.v
        self.qkv = stack(*parts) if isinstance(self.out, StepInt8Linear) else joined(*parts)
        if self.qkv is not None:
            del self.q, self.k, self.v

    def _project(self, x: Tensor, angles: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys, turned to their positions, and values."""

        def split(y: Tensor) -> Tensor:
            return y.unflatten(-1, (-1, self.head_width)).transpose(1, 2)

        if self.qkv is None:
            return rotate(split(self.q(x)), *angles), rotate(split(self.k(x)), *angles), split(self.v(x))
        y = split(self.qkv(x))
        turned = rotate(y[:, : self.heads + self.key_heads], *angles)
        return turned[:, : self.heads], turned[:, self.heads :], y[:, self.heads + self.key_heads :]

    def forward(
        self,
        x: Tensor,
        angles: tuple[Tensor, Tensor],
        mask: Tensor | None,
        cache: KVCache | None,
        last_only: bool = False,
    ) -> Tensor:
        """`mask` as for `attend`; None: everything may attend to everything. With `last_only` what the last token of
        each row finds, [B, 1, D]."""
        q, k, v = self._project(x, angles)
        if cache is not None:
            k, v = cache.append(self.entry, k, v)
        if last_only:
            q, mask = q[:, :, -1:], None if mask is None else mask[:, :, -1:]
        prefix = None if cache is None else cache.prefix(self.entry)
        if mask is None and self.short is not None:
            y = attend_by_head(q.to(self.short), k.to(self.short), v.to(self.short), self.scale).to(x.dtype)
        elif prefix is None:
            y = attend(q, k, v, mask, self.scale, self.softcap)
        else:
            assert mask is not None  # rows share a prefix when they have read different tokens behind it
            assert cache is not None
            y = attend_shared(q, prefix, (k, v), mask, self.scale, self.softcap, cache.groups)
        return self.out(y.transpose(1, 2).flatten(2))
