"""The decoder of Llama 3.2 Vision: Llama's, with layers among its own that attend to images.

Source: transformers `models/mllama/modeling_mllama.py`.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmcli.engine.cross_attention import CrossAttentionKV
from mmcli.engine.kv_cache import KVCache
from mmcli.layers import kernels
from mmcli.layers.attention import additive, attend
from mmcli.layers.decoder import Layer, LlamaConfig, LlamaDecoder
from mmcli.layers.encoder_decoder import join_heads, split_heads
from mmcli.layers.fusing import Fusable
from mmcli.layers.gated_mlp import GatedMLP
from mmcli.layers.linear import on_gpu, stack
from mmcli.models.mllama.config import MllamaConfig


@dataclass(frozen=True)
class CrossContext:
    """What T tokens of R rows attend to of the images of B rows, with R a multiple of B: neighbouring rows share them
    (beams)."""

    images: CrossAttentionKV
    mask: Tensor  # [B, 1, T or 1, S], True or 0 where a token attends
    attends: Tensor  # [R, T or 1, 1], 1 for tokens behind an image


class CrossAttention(Fusable):
    """Attention of text to images, with grouped keys and normed queries and keys: [R, T, D] → [R, T, D]."""

    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.heads, self.key_heads, self.scale = config.heads, config.key_heads, config.head_width**-0.5
        self.q = nn.Linear(config.width, config.heads * config.head_width, bias=False)
        self.k = nn.Linear(config.width, config.key_heads * config.head_width, bias=False)
        self.v = nn.Linear(config.width, config.key_heads * config.head_width, bias=False)
        self.out = nn.Linear(config.heads * config.head_width, config.width, bias=False)
        self.norm_q = nn.RMSNorm(config.head_width, eps=config.norm_epsilon)
        self.norm_k = nn.RMSNorm(config.head_width, eps=config.norm_epsilon)
        self.kv: nn.Module | None = None

    def fuse(self) -> None:
        """On a GPU keys and values come from one product (elsewhere weights stay mapped from their file)."""
        if on_gpu(self.out):
            self.kv = stack(self.k, self.v)
            del self.k, self.v

    def keys_values(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors of images [B, S, D] → keys and values [B, K, S, H]."""
        parts = (self.k(states), self.v(states)) if self.kv is None else self.kv(states).chunk(2, dim=-1)
        k, v = (split_heads(part, self.key_heads) for part in parts)
        return self.norm_k(k), v.contiguous()

    def forward(self, x: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        q = self.norm_q(split_heads(self.q(x), self.heads))
        beams = q.shape[0] // k.shape[0]
        if beams > 1:  # they become further queries of their row
            q = q.unflatten(0, (-1, beams)).transpose(1, 2).flatten(2, 3)
            mask = mask if mask.shape[2] == 1 else mask.repeat(1, 1, beams, 1)
        y = attend(q, k, v, mask, self.scale)
        if beams > 1:
            y = y.unflatten(2, (beams, -1)).transpose(1, 2).flatten(0, 1)
        return self.out(join_heads(y))


class CrossLayer(Fusable):
    """A layer that attends to images instead of to the text, each half multiplied by tanh of its gate."""

    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.norm_attention = nn.RMSNorm(config.width, eps=config.norm_epsilon)
        self.cross = CrossAttention(config)
        self.gate_attention = nn.Parameter(torch.zeros(1))
        self.norm_mlp = nn.RMSNorm(config.width, eps=config.norm_epsilon)
        self.mlp = GatedMLP(config.width, config.mlp_width, "silu")
        self.gate_mlp = nn.Parameter(torch.zeros(1))
        self.gates: tuple[float, float] | None = None  # what multiplies each half, once that is final

    def fuse(self) -> None:
        """The gates change no more."""
        self.gates = self.gate_attention.tanh().item(), self.gate_mlp.tanh().item()

    def forward(self, x: Tensor, k: Tensor, v: Tensor, context: CrossContext) -> Tensor:
        """Rows without images go through unchanged: they attend to zeros. Tokens in front of a first image attend to
        all, and only the second half leaves them as they are: so does transformers.
        """
        y = self.cross(self.norm_attention(x), k, v, context.mask)
        x = x + self.gate_attention.tanh() * y
        return x + self.gate_mlp.tanh() * context.attends * self.mlp(self.norm_mlp(x))


class Decoder(LlamaDecoder):
    """Its cache has entries for the layers with self-attention only; keys and values of images are in its context."""

    def __init__(self, config: MllamaConfig):
        entries = iter(range(config.decoder.depth))
        layers = [
            CrossLayer(config.decoder) if i in config.cross_layers else Layer(config.decoder, next(entries))
            for i in range(config.depth)
        ]
        super().__init__(config.decoder, layers)

    def keys_values(self, states: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Vectors of images [B, S, D] → keys and values of every layer that attends to them."""
        return [layer.cross.keys_values(states) for layer in self.layers if isinstance(layer, CrossLayer)]

    def read(self, x: Tensor, positions: Tensor, mask: Tensor, cache: KVCache, context: CrossContext | None) -> Tensor:
        """As `forward`; without a `context` there are no images, and the layers for them are passed over."""
        angles = self.angles(positions, x)
        if x.shape[1] == 1:  # made once for all layers
            mask = additive(mask, x.dtype)
        keys_values = iter(()) if context is None else iter(context.images.layers)
        layers: list[tuple[Any, tuple[Tensor, ...] | None]] = [
            (layer, next(keys_values) if isinstance(layer, CrossLayer) else None)
            for layer in self.layers
            if context is not None or not isinstance(layer, CrossLayer)
        ]
        if kernels.chosen(x, cache) or kernels.reads_prompt(x):
            from mmcli.layers.decoder_step import LayerParts, PromptParts, run_layers  # imports Triton
            from mmcli.models.mllama.step import CrossParts, CrossPromptParts

            kind, cross = (LayerParts, CrossParts) if x.shape[1] == 1 else (PromptParts, CrossPromptParts)
            parts: list[Any] = [
                kind(*layer.parts(mask)) if seen is None else cross(layer, seen[0], seen[1], context, x.shape[1])
                for layer, seen in layers
            ]
            if all(part.is_fused for part in parts):
                return run_layers(parts, self.norm.weight, x, angles, cache, self.config.norm_epsilon, "silu")
        for layer, seen in layers:
            x = layer(x, angles, mask, cache) if seen is None else layer(x, *seen, context)
        return self.norm(x)
