"""Persimmon's decoder (Adept, 2023): one product for queries, keys and values, norms on both of the first, relu².

Source: transformers `models/persimmon/modeling_persimmon.py`.
"""

from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcli.engine.kv_cache import KVCache
from mmcli.layers import kernels
from mmcli.layers.attention import additive, attend, attend_shared
from mmcli.layers.fusing import Fusable
from mmcli.layers.linear import on_gpu
from mmcli.layers.rope import rotary_angles, rotate
from mmcli.layers.table import Table
from mmcli.models.fuyu.config import DecoderConfig

Angles = tuple[Tensor, Tensor]


class Attention(Fusable):
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
        self.arranged = False  # whether the outputs of `qkv` are in the order of `arrange`

    def fuse(self) -> None:
        """On a GPU outputs are put into the order of the kernels (elsewhere weights stay mapped from their file)."""
        if on_gpu(self.out) and type(self.qkv) is nn.Linear and self.config.head_width % 2 == 0:
            self.arrange()

    def arrange(self) -> None:
        """Let all queries stand first, then all keys, then all values, and pairs that are turned together half a head
        apart, as `rope.rotate` takes them: those that are not turned stand behind the others of each half."""
        c = self.config
        half, pairs = c.head_width // 2, c.turned // 2
        still = torch.arange(c.turned, c.head_width)
        inside = torch.cat((torch.arange(pairs), still[: half - pairs], torch.arange(pairs, 2 * pairs)))
        inside = torch.cat((inside, still[half - pairs :]))
        outputs = torch.arange(len(self.qkv.weight)).view(c.heads, 3, c.head_width).transpose(0, 1)
        order = torch.cat((outputs[:2, :, inside], outputs[2:])).flatten()
        vectors = [self.qkv.weight, self.qkv.bias]
        places = [order, order]
        for norm in (self.norm_q, self.norm_k):
            if isinstance(norm, nn.LayerNorm):
                vectors += [norm.weight, norm.bias]
                places += [inside, inside]
        for vector, place in zip(vectors, places, strict=True):
            vector.data = vector.data[place.to(vector.device)]
        self.arranged = True

    def forward(self, x: Tensor, angles: Angles, mask: Tensor, cache: KVCache, last_only: bool = False) -> Tensor:
        """`angles` are those of the first `turned` numbers of a head, or where it is `arranged`, of all. With
        `last_only` what the last token of each row finds, [B, 1, D]."""
        if self.arranged:
            q, k, v = self.qkv(x).unflatten(-1, (3, self.config.heads, -1)).permute(2, 0, 3, 1, 4)
            q, k = rotate(self.norm_q(q), *angles), rotate(self.norm_k(k), *angles)
        else:
            q, k, v = self.qkv(x).unflatten(-1, (self.config.heads, 3, -1)).transpose(1, 2).unbind(3)
            q, k = self._turn(self.norm_q(q), angles), self._turn(self.norm_k(k), angles)
        k, v = cache.append(self.layer, k, v)
        if last_only:
            q, mask = q[:, :, -1:], mask[:, :, -1:]
        prefix = cache.prefix(self.layer)
        scale = self.config.head_width**-0.5
        y = attend(q, k, v, mask, scale) if prefix is None else attend_shared(q, prefix, (k, v), mask, scale)
        return self.out(y.transpose(1, 2).flatten(2))

    def _turn(self, x: Tensor, angles: Angles) -> Tensor:
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

    def forward(self, x: Tensor, angles: Angles, mask: Tensor, cache: KVCache, last_only: bool = False) -> Tensor:
        """[B, T, D] → the same, or with `last_only` that of the last tokens [B, 1, D]."""
        y = self.attention(self.norm_attention(x), angles, mask, cache, last_only)
        x = (x[:, -1:] if last_only else x) + y
        return x + self.mlp(self.norm_mlp(x))


class PersimmonDecoder(nn.Module):
    """Embeddings, layers, final norm and a head of its own."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.config = config
        self.embedding = Table(config.vocabulary, config.width)
        self.embedding.is_head = False
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
        self,
        x: Tensor,
        positions: Tensor,
        mask: Tensor,
        cache: KVCache,
        sliding_mask: Tensor | None = None,
        last_only: bool = False,
    ) -> Tensor:
        """Vectors [B, T, D] at `positions` [B, T] under `mask` [B, 1, T, S] → normed hidden states [B, T, D].

        No layer slides, so `sliding_mask` is of no use. With `last_only` the last layer reads no more for other tokens
        than their keys and values, and gives those of the last ones [B, 1, D].
        """
        layers = list(cast(Iterable[Layer], self.layers))
        arranged = all(layer.attention.arranged for layer in layers)
        angles = self._angles(positions, x, arranged)
        if x.shape[1] == 1:
            mask = additive(mask, x.dtype)
        if arranged and (kernels.chosen(x, cache) or (kernels.reads_prompt(x) and cache.shared is None)):
            from mmcli.models.fuyu.step import run_layers  # imports Triton

            return run_layers(layers, self.norm, x, angles, mask, cache, last_only)
        for layer in layers:
            x = layer(x, angles, mask, cache, last_only and layer is layers[-1])
        return self.norm(x)

    def _angles(self, positions: Tensor, like: Tensor, whole: bool) -> Angles:
        """What queries and keys at `positions` [B, T] are turned by; `whole` heads by nothing behind `turned`."""
        c = self.config
        cos, sin = rotary_angles(positions, c.turned, c.rope_base)
        if whole and c.turned < c.head_width:
            still = (c.head_width - c.turned) // 2
            cos = F.pad(cos.unflatten(-1, (2, -1)), (0, still), value=1.0).flatten(-2)
            sin = F.pad(sin.unflatten(-1, (2, -1)), (0, still)).flatten(-2)
        return cos.to(like.dtype), sin.to(like.dtype)

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states [..., D] → float32 logits [..., V]."""
        if type(self.head) is nn.Linear:
            return kernels.floats(kernels.linear(hidden, self.head.weight))
        return self.head(hidden).float()
