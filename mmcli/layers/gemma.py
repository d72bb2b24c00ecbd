"""The decoders of Gemma 1 (arXiv:2403.08295) and Gemma 2 (arXiv:2408.00118), from one configuration."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmcli.engine.kv_cache import KVCache
from mmcli.layers import kernels
from mmcli.layers.attention import additive
from mmcli.layers.gated_mlp import GatedMLP
from mmcli.layers.grouped_query import GroupedQueryAttention
from mmcli.layers.norms import GemmaNorm
from mmcli.layers.rope import angles_at
from mmcli.layers.table import Table


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes and switches of a Gemma decoder."""

    vocabulary: int
    width: int
    depth: int
    mlp_width: int
    heads: int
    key_heads: int
    head_width: int
    query_scale: float  # multiplies the product of query and key
    rope_base: float = 10_000.0
    norm_epsilon: float = 1e-6
    sandwich_norms: bool = False  # Gemma 2: a norm after attention and after the MLP as well as before
    attention_softcap: float | None = None
    logit_softcap: float | None = None
    sliding_layers: tuple[bool, ...] = ()  # Gemma 2: which layers look through a window; empty = none


class Layer(nn.Module):
    """One decoder layer; Gemma 2 wraps each half in a second norm."""

    def __init__(self, config: DecoderConfig, layer: int):
        super().__init__()

        def norm() -> GemmaNorm:
            return GemmaNorm(config.width, config.norm_epsilon)

        self.norm_attention, self.norm_mlp = norm(), norm()
        self.norm_attention_out = norm() if config.sandwich_norms else nn.Identity()
        self.norm_mlp_out = norm() if config.sandwich_norms else nn.Identity()
        heads = config.heads, config.key_heads, config.head_width
        self.attention = GroupedQueryAttention(
            layer, config.width, *heads, config.query_scale, config.attention_softcap
        )
        self.mlp = GatedMLP(config.width, config.mlp_width, "gelu")

    def forward(
        self,
        x: Tensor,
        angles: tuple[Tensor, Tensor],
        mask: Tensor | None,
        cache: KVCache | None,
        last_only: bool = False,
    ) -> Tensor:
        """[B, T, D] → the same, or with `last_only` that of the last tokens [B, 1, D]."""
        y = self.attention(self.norm_attention(x), angles, mask, cache, last_only)
        x = (x[:, -1:] if last_only else x) + self.norm_attention_out(y)
        return x + self.norm_mlp_out(self.mlp(self.norm_mlp(x)))

    def parts(self, mask: Tensor) -> tuple[Any, ...]:
        """What `decoder_step.LayerParts` holds, under this mask."""
        outer = self.norm_attention_out, self.norm_mlp_out
        scales = (norm.factor() if isinstance(norm, GemmaNorm) else None for norm in outer)
        return self.attention, self.mlp, mask, self.norm_attention.factor(), self.norm_mlp.factor(), *scales


class GemmaDecoder(nn.Module):
    """Embeddings, layers, final norm and the tied head.

    Text embeddings are scaled by √D at look-up; whatever else enters (`forward` takes vectors) enters as it is.
    """

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.config = config
        self.embedding = Table(config.vocabulary, config.width)
        self.layers = nn.ModuleList(Layer(config, i) for i in range(config.depth))
        self.norm = GemmaNorm(config.width, config.norm_epsilon)

    def embed(self, tokens: Tensor) -> Tensor:
        """Token ids [B, T] → vectors [B, T, D]; the scale is rounded to the weights' type, as Gemma does."""
        x = self.embedding(tokens)
        return x * torch.tensor(self.config.width**0.5, dtype=x.dtype).item()

    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        mask: Tensor | None,
        cache: KVCache | None = None,
        sliding_mask: Tensor | None = None,
        last_only: bool = False,
    ) -> Tensor:
        """Vectors [B, T, D] at `positions` [B, T] under `mask` [B, 1, T, S] → normed hidden states [B, T, D].

        Layers marked in `sliding_layers` use `sliding_mask` where one is given. With `last_only` the last layer reads
        no more for other tokens than their keys and values, and gives those of the last ones [B, 1, D].
        """
        # What all layers use is made once.
        angles = angles_at(positions, x, self.config.head_width, self.config.rope_base)
        if x.shape[1] == 1 and mask is not None:
            mask = additive(mask, x.dtype)
            sliding_mask = None if sliding_mask is None else additive(sliding_mask, x.dtype)
        slides = self.config.sliding_layers or (False,) * len(self.layers)
        masks = [mask if sliding_mask is None or not own else sliding_mask for own in slides]
        if kernels.chosen(x, cache) or kernels.reads_prompt(x):
            from mmcli.layers import decoder_step  # imports Triton

            layers: Any = self.layers
            kind = decoder_step.LayerParts if x.shape[1] == 1 else decoder_step.PromptParts
            parts = [kind(*layer.parts(own)) for layer, own in zip(layers, masks, strict=True)]
            if all(part.is_fused for part in parts):
                last, epsilon = self.norm.factor(), self.config.norm_epsilon
                return decoder_step.run_layers(parts, last, x, angles, cache, epsilon, "gelu", last_only=last_only)
        for layer, own in zip(self.layers, masks, strict=True):
            x = layer(x, angles, own, cache, last_only and layer is self.layers[-1])
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states [..., D] → float32 logits [..., V] through the tied head."""
        return self.embedding.logits(hidden, cap=self.config.logit_softcap)
