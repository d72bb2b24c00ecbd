"""Persimmon's decoder (Adept, 2023): one product for queries, keys and values, norms on both of the first, relu².

Source: transformers `models/persimmon/modeling_persimmon.py`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcli.engine.kv_cache import KVCache
from mmcli.layers.attention import additive, attend, attend_shared
from mmcli.layers.rope import rotary_angles, rotate
from mmcli.layers.table import Table
from mmcli.models.fuyu.config import DecoderConfig


class Attention(nn.Module):
    """Attention of which the first `turned` numbers of each head know their positions: [B, T, D] → [B, T, D]."""

    def __init__(self, config: DecoderConfig, layer: int):
        super().__init__()
        self.config = config
        self.layer = layer
        self.qkv = nn.Linear(config.width, 3 * config.width)  # head by head, each with its query, key and value
        self.out = nn.Linear(config.width, config.width)

        def norm() -> nn.Module:
            return nn.LayerNorm(config.head_width, config.norm_epsilon) if config.head_norms else nn.Identity()

        self.norm_q, self.norm_k = norm(), norm()

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor], mask: Tensor, cache: KVCache) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (self.config.heads, 3, -1)).transpose(1, 2).unbind(3)
        q, k = self._turn(self.norm_q(q), angles), self._turn(self.norm_k(k), angles)
        k, v = cache.append(self.layer, k, v)
        prefix = cache.prefix(self.layer)
        scale = self.config.head_width**-0.5
        y = attend(q, k, v, mask, scale) if prefix is None else attend_shared(q, prefix, (k, v), mask, scale)
        return self.out(y.transpose(1, 2).flatten(2))

    def _turn(self, x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
        """Queries or keys [B, N, T, H] at their positions."""
        turned = self.config.turned
        if turned == x.shape[-1]:
            return rotate(x, *angles)
        return torch.cat((rotate(x[..., :turned], *angles), x[..., turned:]), dim=-1)


class MLP(nn.Module):
    """Feed-forward with the square of ReLU (So et al., arXiv:2109.08668): [B, T, D] → [B, T, D]."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.up = nn.Linear(config.width, config.mlp_width)
        self.down = nn.Linear(config.mlp_width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.relu(self.up(x)).square())


class Layer(nn.Module):
    """One decoder layer."""

    def __init__(self, config: DecoderConfig, layer: int):
        super().__init__()
        self.norm_attention = nn.LayerNorm(config.width, config.norm_epsilon)
        self.norm_mlp = nn.LayerNorm(config.width, config.norm_epsilon)
        self.attention = Attention(config, layer)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor], mask: Tensor, cache: KVCache) -> Tensor:
        x = x + self.attention(self.norm_attention(x), angles, mask, cache)
        return x + self.mlp(self.norm_mlp(x))


class PersimmonDecoder(nn.Module):
    """Embeddings, layers, final norm and a head of its own."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.config = config
        self.embedding = Table(config.vocabulary, config.width)
        self.layers = nn.ModuleList(Layer(config, i) for i in range(config.depth))
        self.norm = nn.LayerNorm(config.width, config.norm_epsilon)
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)

    def new_cache(self, batch: int, length: int) -> KVCache:
        """An empty cache for `batch` rows of `length` tokens, where the weights lie and in their type."""
        c, like = self.config, self.norm.weight
        return KVCache(c.depth, batch, length, c.heads, c.head_width, like.dtype, like.device, shareable=True)

    def embed(self, tokens: Tensor) -> Tensor:
        """Token ids [B, T] → vectors [B, T, D]."""
        return self.embedding(tokens)

    def forward(
        self, x: Tensor, positions: Tensor, mask: Tensor, cache: KVCache, sliding_mask: Tensor | None = None
    ) -> Tensor:
        """Vectors [B, T, D] at `positions` [B, T] under `mask` [B, 1, T, S] → normed hidden states [B, T, D].

        No layer slides, so `sliding_mask` is of no use.
        """
        cos, sin = rotary_angles(positions, self.config.turned, self.config.rope_base)
        angles = cos.to(x.dtype), sin.to(x.dtype)
        if x.shape[1] == 1:
            mask = additive(mask, x.dtype)
        for layer in self.layers:
            x = layer(x, angles, mask, cache)
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states [..., D] → float32 logits [..., V]."""
        return self.head(hidden).float()
