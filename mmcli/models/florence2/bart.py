"""BART (Lewis et al., arXiv:1910.13461): an encoder that reads in both directions and a decoder that attends to it.

Every half of a layer is normed behind its sum, and so are the embeddings.
"""

from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcli.engine.cross_attention import CrossAttentionKV
from mmcli.engine.kv_cache import KVCache
from mmcli.layers.encoder_decoder import MLP, CrossAttention, SelfAttention
from mmcli.models.florence2.config import TextConfig
from mmcli.models.stacks import StackConfig

FIRST_POSITION = 2  # of the table: the first two rows are not used


class EncoderLayer(nn.Module):
    """One encoder layer."""

    def __init__(self, width: int, stack: StackConfig):
        super().__init__()
        self.attention = SelfAttention(width, stack.heads, key_bias=True)
        self.norm_attention = nn.LayerNorm(width)
        self.mlp = MLP(width, stack.mlp_width)
        self.norm_mlp = nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.norm_attention(x + self.attention(x, mask))
        return self.norm_mlp(x + self.mlp(x))


class DecoderLayer(nn.Module):
    """One decoder layer: to the text so far, to what was read, feed-forward."""

    def __init__(self, width: int, stack: StackConfig):
        super().__init__()
        self.attention = SelfAttention(width, stack.heads, key_bias=True)
        self.norm_attention = nn.LayerNorm(width)
        self.cross = CrossAttention(width, stack.heads, key_bias=True)
        self.norm_cross = nn.LayerNorm(width)
        self.mlp = MLP(width, stack.mlp_width)
        self.norm_mlp = nn.LayerNorm(width)


class Side(nn.Module):
    """What encoder and decoder have alike: learned positions and a norm behind the embeddings."""

    def __init__(self, config: TextConfig):
        super().__init__()
        self.position = nn.Parameter(torch.zeros(config.positions + FIRST_POSITION, config.width))
        self.norm = nn.LayerNorm(config.width)

    def place(self, x: Tensor, positions: Tensor) -> Tensor:
        """Embeddings [B, T, D] at positions [B, T], counted from 0 → what the first layer reads."""
        return self.norm(x + self.position[positions + FIRST_POSITION])


class Encoder(Side):
    """Embeddings [B, T, D] of which `valid` [B, T] are real → states [B, T, D]."""

    def __init__(self, config: TextConfig):
        super().__init__(config)
        self.layers = nn.ModuleList(EncoderLayer(config.width, config.encoder) for _ in range(config.encoder.depth))

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        x = self.place(x, torch.arange(x.shape[1], device=x.device)[None])
        # Padding stands behind, so positions do not move; no row is empty.
        mask = None if bool(valid.all()) else valid[:, None, None, :]
        for layer in self.layers:
            x = layer(x, mask)
        return x


class Decoder(Side):
    """Tokens behind what a cache holds, attending to what was encoded."""

    def __init__(self, config: TextConfig):
        super().__init__(config)
        self.layers = nn.ModuleList(DecoderLayer(config.width, config.decoder) for _ in range(config.decoder.depth))

    def keys_values(self, states: Tensor, valid: Tensor) -> CrossAttentionKV:
        """Encoder states [B, T, D] → the keys and values of every layer."""
        layers = (layer.cross.keys_values(states) for layer in cast(Iterable[DecoderLayer], self.layers))
        everything = bool(valid.all())
        return CrossAttentionKV([(k.contiguous(), v.contiguous()) for k, v in layers], None if everything else valid)

    def forward(self, x: Tensor, cache: KVCache) -> Tensor:
        """Embeddings [R, T, D] of the next tokens of every row → states [R, T, D]."""
        count = x.shape[1]
        positions = cache.positions[:, None] + torch.arange(count, device=x.device)
        cache.extend(torch.ones(x.shape[:2], dtype=torch.bool, device=x.device))
        mask = cache.step_mask() if count == 1 else cache.causal_mask(count)
        encoded = cast(CrossAttentionKV, cache.context)
        attended = encoded.mask()
        x = self.place(x, positions)
        for number, layer in enumerate(cast(Iterable[DecoderLayer], self.layers)):
            x = layer.norm_attention(x + layer.attention(x, mask, cache, number))
            x = layer.norm_cross(x + layer.cross(x, encoded.layers[number], attended))
            x = layer.norm_mlp(x + layer.mlp(x))
        return x


class Bart(nn.Module):
    """The language model; its table is also the head. The vendor's layout adds a bias to the logits."""

    def __init__(self, config: TextConfig, head_bias: bool):
        super().__init__()
        self.scale = config.embedding_scale
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.head_bias = nn.Parameter(torch.zeros(1, config.vocabulary)) if head_bias else None

    def embed(self, tokens: Tensor) -> Tensor:
        """Token ids [B, T] → [B, T, D]."""
        return self.embedding(tokens) * self.scale

    def logits(self, hidden: Tensor) -> Tensor:
        """States [..., D] → logits [..., V] in float32."""
        logits = F.linear(hidden, self.embedding.weight).float()
        return logits if self.head_bias is None else logits + self.head_bias.float()
