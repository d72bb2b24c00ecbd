"""The decoder of Llama (arXiv:2302.13971) and of the models built like it, from one configuration.

Mistral (arXiv:2310.06825) adds a window, Qwen2 (arXiv:2407.10671) biases, MiniCPM (arXiv:2404.06395) three scales.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from mmcli.engine.kv_cache import KVCache
from mmcli.layers import kernels
from mmcli.layers.attention import additive
from mmcli.layers.gated_mlp import GatedMLP
from mmcli.layers.grouped_query import GroupedQueryAttention
from mmcli.layers.int8_step import head_kind
from mmcli.layers.rope import Llama3Scaling, angles_at
from mmcli.layers.table import Table

Angles = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class LlamaConfig:
    """Sizes and switches of a Llama-type decoder."""

    vocabulary: int  # ids that can be written
    width: int
    depth: int  # layers with self-attention
    mlp_width: int
    heads: int
    key_heads: int
    head_width: int
    rope_base: float = 10_000.0
    rope_scaling: Llama3Scaling | None = None
    norm_epsilon: float = 1e-6
    qkv_bias: bool = False  # Qwen2
    tied: bool = False  # whether the head is the embedding
    window: int | None = None  # tokens that the layers in `sliding_layers` attend to, their own included
    sliding_layers: tuple[bool, ...] = ()  # empty: none
    more_rows: int = 0  # of the embedding, for ids behind the vocabulary that are read and never written
    embedding_scale: float = 1.0  # MiniCPM: multiplies the vectors of tokens
    residual_scale: float = 1.0  # MiniCPM: multiplies what every half of a layer adds
    logit_scale: float = 1.0  # MiniCPM: multiplies what the head reads
    positions: int | None = None  # tokens that it was made to read; None: unknown


class Layer(nn.Module):
    """One decoder layer; `entry` is its place in the cache."""

    def __init__(self, config: LlamaConfig, entry: int):
        super().__init__()
        self.scale = config.residual_scale
        self.sliding = bool(config.sliding_layers) and config.sliding_layers[entry]
        self.norm_attention = nn.RMSNorm(config.width, eps=config.norm_epsilon)
        self.norm_mlp = nn.RMSNorm(config.width, eps=config.norm_epsilon)
        heads, scale = (config.heads, config.key_heads, config.head_width), config.head_width**-0.5
        self.attention = GroupedQueryAttention(entry, config.width, *heads, scale, bias=config.qkv_bias)
        self.mlp = GatedMLP(config.width, config.mlp_width, "silu")

    def forward(self, x: Tensor, angles: Angles, mask: Tensor, cache: KVCache | None) -> Tensor:
        x = x.add(self.attention(self.norm_attention(x), angles, mask, cache), alpha=self.scale)
        return x.add(self.mlp(self.norm_mlp(x)), alpha=self.scale)

    def parts(self, mask: Tensor) -> tuple[Any, ...]:
        """What `decoder_step.LayerParts` holds, under this mask."""
        return self.attention, self.mlp, mask, self.norm_attention.weight, self.norm_mlp.weight


class LlamaDecoder(nn.Module):
    """Embeddings, layers, final norm and head.

    `forward` takes vectors, so that those of images can stand among those of tokens; `embed` makes the latter.
    """

    def __init__(self, config: LlamaConfig, layers: Iterable[nn.Module] | None = None):
        """`layers`: where a family has others among the plain ones."""
        super().__init__()
        self.config = config
        self.embedding = Table(config.vocabulary + config.more_rows, config.width)
        self.embedding.is_head = config.tied
        self.layers = nn.ModuleList((Layer(config, i) for i in range(config.depth)) if layers is None else layers)
        self.norm = nn.RMSNorm(config.width, eps=config.norm_epsilon)
        self.head: nn.Module | None = None if config.tied else nn.Linear(config.width, config.vocabulary, bias=False)

    def new_cache(self, batch: int, length: int) -> KVCache:
        """An empty cache for `batch` rows of `length` tokens, where the weights lie and in their type."""
        c, like = self.config, self.norm.weight
        return KVCache(c.depth, batch, length, c.key_heads, c.head_width, like.dtype, like.device, shareable=True)

    def embed(self, tokens: Tensor) -> Tensor:
        """Token ids [B, T] → vectors [B, T, D]."""
        x = self.embedding(tokens)
        return x if self.config.embedding_scale == 1 else x * self.config.embedding_scale

    def angles(self, positions: Tensor, like: Tensor) -> Angles:
        """What all layers turn queries and keys at `positions` [B, T] by, in the type of `like`."""
        c = self.config
        return angles_at(positions, like, c.head_width, c.rope_base, c.rope_scaling)

    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        mask: Tensor,
        cache: KVCache | None = None,
        sliding_mask: Tensor | None = None,
        last_only: bool = False,
    ) -> Tensor:
        """Vectors [B, T, D] at `positions` [B, T] under `mask` [B, 1, T, S] → normed hidden states [B, T, D].

        Layers with a window use `sliding_mask` where one is given. With `last_only` they are those of the last tokens
        [B, 1, D], and where kernels read the prompt the last layer makes no more of the others than keys and values.
        """
        angles = self.angles(positions, x)
        if x.shape[1] == 1:  # made once for all layers
            mask = additive(mask, x.dtype)
            sliding_mask = None if sliding_mask is None else additive(sliding_mask, x.dtype)
        masks = [sliding_mask if layer.sliding and sliding_mask is not None else mask for layer in self.layers]
        if kernels.chosen(x, cache) or kernels.reads_prompt(x):
            from mmcli.layers import decoder_step  # imports Triton

            layers: Any = self.layers
            kind = decoder_step.LayerParts if x.shape[1] == 1 else decoder_step.PromptParts
            parts = [kind(*layer.parts(own)) for layer, own in zip(layers, masks, strict=True)]
            if all(part.is_fused for part in parts):
                epsilon, scale = self.config.norm_epsilon, self.config.residual_scale
                return decoder_step.run_layers(
                    parts, self.norm.weight, x, angles, cache, epsilon, "silu", scale, last_only
                )
        for layer, own in zip(self.layers, masks, strict=True):
            x = layer(x, angles, own, cache)
        return self.norm(x[:, -1:] if last_only else x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states [..., D] → float32 logits [..., V]."""
        if self.config.logit_scale != 1:
            hidden = hidden * self.config.logit_scale
        if self.head is not None:
            return self.head(hidden).float()
        return self.embedding.logits(hidden, self.config.vocabulary)

    def quantise_head(self) -> None:
        """Let the head's product be one of 8-bit integers, on a CPU; where it is the embedding, it gets a copy."""
        table = self.embedding.weight[: self.config.vocabulary]
        self.embedding.is_head = False
        self.head = head_kind()(table if self.head is None else self.head.get_parameter("weight"), None)
