"""The decoder of Gemma 3n: attention with shared keys, sparse MLPs, AltUp, LAUREL and per-layer embeddings.

Source: transformers `models/gemma3n/modeling_gemma3n.py`; google-deepmind/gemma `gm/nn/gemma3n`.
"""

from math import sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcli.engine.kv_cache import KVCache
from mmcli.layers import kernels
from mmcli.layers.attention import additive, attend
from mmcli.layers.fusing import Fusable
from mmcli.layers.gated_mlp import GatedMLP
from mmcli.layers.linear import on_gpu, stack
from mmcli.layers.rope import angles_at, rotate
from mmcli.layers.table import Table
from mmcli.models.gemma3n.altup import AltUp, Streams
from mmcli.models.gemma3n.config import LayerConfig, TextConfig
from mmcli.models.gemma3n.table import PerLayerInputs, rounded

Masks = tuple[Tensor, Tensor]  # for full and for sliding layers, [B, 1, T, S]; S are the last places of the cache
Angles = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]  # for full and for sliding layers


class Attention(Fusable):
    """Grouped-query attention with normed queries, keys and values: [B, T, D] → [B, T, D].

    A layer that attends to another's keys and values has queries only.
    """

    def __init__(self, config: TextConfig, index: int):
        super().__init__()
        self.config = config
        self.layer = config.layers[index]
        self.entry = config.owners.index(self.layer.source)  # where the cache holds the keys that it attends to
        self.owns = self.layer.source == index
        self.heads = [config.heads, config.key_heads, config.key_heads]
        width, head = config.width, config.head_width
        self.q = nn.Linear(width, config.heads * head, bias=False)
        self.norm_q = nn.RMSNorm(head, eps=config.norm_epsilon)
        if self.owns:
            self.k = nn.Linear(width, config.key_heads * head, bias=False)
            self.v = nn.Linear(width, config.key_heads * head, bias=False)
            self.norm_k = nn.RMSNorm(head, eps=config.norm_epsilon)
            self.norm_v = nn.RMSNorm(head, eps=config.norm_epsilon, elementwise_affine=False)
        self.out = nn.Linear(config.heads * head, width, bias=False)
        self.qkv: nn.Module | None = None

    def fuse(self) -> None:
        """On a GPU queries, keys and values come from one product (elsewhere weights stay mapped from their file)."""
        if self.owns and on_gpu(self.out):
            self.qkv = stack(self.q, self.k, self.v)
            del self.q, self.k, self.v

    def forward(self, x: Tensor, angles: Angles, masks: Masks, cache: KVCache) -> Tensor:
        def split(y: Tensor) -> Tensor:
            return y.unflatten(-1, (-1, self.config.head_width)).transpose(1, 2)

        kind = int(self.layer.sliding)
        turn, mask = angles[kind], masks[kind]
        if not self.owns:
            q = split(self.q(x))
            k, v = cache.layer(self.entry)
        else:
            if self.qkv is None:
                q, k, v = split(self.q(x)), split(self.k(x)), split(self.v(x))
            else:
                q, k, v = split(self.qkv(x)).split(self.heads, dim=1)
            k, v = cache.append(self.entry, rotate(self.norm_k(k), *turn), self.norm_v(v))
        seen = mask.shape[-1]  # of the last places; a window's mask need not cover what is further back
        y = attend(rotate(self.norm_q(q), *turn), k[:, :, -seen:], v[:, :, -seen:], mask, scale=1.0)
        return self.out(y.transpose(1, 2).flatten(2))


class MLP(GatedMLP):
    """Gated feed-forward with the tanh form of GELU, in some layers sparse: [B, T, D] → [B, T, D].

    In sparse layers a gate is open only as far as it is above most of its token's gates, taken as normally distributed
    (spark transformer, arXiv:2506.06644).
    """

    def __init__(self, width: int, layer: LayerConfig):
        super().__init__(width, layer.mlp_width, "gelu")
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        if not self.layer.sparsity:
            return super().forward(x)
        gate, up = (self.gate(x), self.up(x)) if self.gate_up is None else self.gate_up(x).chunk(2, dim=-1)
        deviation, mean = torch.std_mean(gate, dim=-1, keepdim=True, correction=0)
        gate = F.relu(gate - torch.add(mean, deviation, alpha=rounded(self.layer.deviations, gate.dtype)))
        return self.down(F.gelu(gate, approximate="tanh") * up)


class Laurel(nn.Module):
    """Learned augmented residual (LAUREL-LR, arXiv:2411.07501), without the residual: [B, T, D] → [B, T, D]."""

    def __init__(self, config: TextConfig):
        super().__init__()
        self.left = nn.Linear(config.width, config.laurel_rank, bias=False)
        self.right = nn.Linear(config.laurel_rank, config.width, bias=False)
        self.norm = nn.RMSNorm(config.width, eps=config.norm_epsilon)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.right(self.left(x)))


class PerLayerGate(nn.Module):
    """What a layer takes from its own embedding of the token: x [B, T, D], row [B, T, P] → [B, T, D]."""

    def __init__(self, config: TextConfig):
        super().__init__()
        self.gate = nn.Linear(config.width, config.table_width, bias=False)
        self.out = nn.Linear(config.table_width, config.width, bias=False)
        self.norm = nn.RMSNorm(config.width, eps=config.norm_epsilon)

    def forward(self, x: Tensor, row: Tensor) -> Tensor:
        return self.norm(self.out(F.gelu(self.gate(x), approximate="tanh") * row))


class Layer(nn.Module):
    """One decoder layer on the active stream, and its prediction for the others: [B, T, A, D] → the same."""

    def __init__(self, config: TextConfig, index: int):
        super().__init__()

        def norm() -> nn.Module:
            return nn.RMSNorm(config.width, eps=config.norm_epsilon)

        self.altup = AltUp(config.width, config.streams, config.norm_epsilon, config.corrects_scale)
        self.laurel = Laurel(config)
        self.norm_attention, self.norm_attention_out, self.norm_mlp, self.norm_mlp_out = (norm() for _ in range(4))
        self.attention = Attention(config, index)
        self.mlp = MLP(config.width, config.layers[index])
        self.per_layer = PerLayerGate(config)

    def forward(self, streams: Tensor, row: Tensor, angles: Angles, masks: Masks, cache: KVCache) -> Tensor:
        predicted = self.altup.predict(streams)
        active = predicted[:, :, 0]
        x = self.norm_attention(active)
        aside = x + self.laurel(x)
        x = (active + self.norm_attention_out(self.attention(x, angles, masks, cache)) + aside) * sqrt(0.5)
        x = x + self.norm_mlp_out(self.mlp(self.norm_mlp(x)))
        streams = self.altup.correct(predicted, x)
        more = self.per_layer(self.altup.scaled(streams), row)[:, :, None]
        if torch.is_grad_enabled():  # gradients need what stood there
            return torch.cat((streams[:, :, :1], streams[:, :, 1:] + more), dim=2)
        streams[:, :, 1:].add_(more)
        return streams


class Decoder(nn.Module):
    """Embeddings, layers, final norm and the tied head.

    Text embeddings are scaled by √D at look-up; whatever else enters (`forward` takes vectors) enters as it is.
    """

    def __init__(self, config: TextConfig):
        super().__init__()
        self.config = config
        self.embedding = Table(config.vocabulary, config.width)
        self.per_layer = PerLayerInputs(config)
        self.streams = Streams(config.width, config.streams)
        self.layers = nn.ModuleList(Layer(config, i) for i in range(config.depth))
        self.norm = nn.RMSNorm(config.width, eps=config.norm_epsilon)
        self.scale = sqrt(config.width)

    def embed(self, tokens: Tensor) -> Tensor:
        """Token ids [B, T] → vectors [B, T, D]."""
        x = self.embedding(tokens)
        return x * rounded(self.scale, x.dtype)

    def read_all(self, x: Tensor, rows: Tensor, positions: Tensor, masks: Masks, cache: KVCache) -> Tensor:
        """As `forward`, of all vectors: [B, T, D] → their normed hidden states [B, T, D]."""
        angles = self._angles(x, positions)
        streams = self.streams.split(x)
        for layer, row in zip(self.layers, self.per_layer(x, rows).unbind(dim=2), strict=True):
            streams = layer(streams, row, angles, masks, cache)
        return self.norm(self.streams.join(streams))

    def _angles(self, x: Tensor, positions: Tensor) -> Angles:
        c = self.config
        full, sliding = (angles_at(positions, x, c.head_width, base) for base in (c.rope_base, c.sliding_rope_base))
        return full, sliding

    def forward(
        self, x: Tensor, rows: Tensor, positions: Tensor, masks: Masks, cache: KVCache, answers: bool = True
    ) -> Tensor | None:
        """Read vectors [B, T, D] into the cache → the last one's normed hidden state [B, D] for the head.

        `rows` [B, T, L·P] are those of the per-layer table, `masks` are over what the cache holds with these vectors.
        Layers without keys of their own leave nothing behind: they run for the last vector only, or not at all where
        no answer is wanted.
        """
        c = self.config
        angles: Any = self._angles(x, positions)
        if x.shape[1] == 1:
            masks = additive(masks[0], x.dtype), additive(masks[1], x.dtype)  # once, and not by every layer
        per_layer = self.per_layer(x, rows).unbind(dim=2)
        streams = self.streams.split(x)
        if kernels.chosen(x, cache) or kernels.reads_prompt(x):
            from mmcli.models.gemma3n import step  # imports Triton

            if step.fits(self):
                given = self, streams, per_layer, angles, masks, cache
                if x.shape[1] == 1:
                    read: Tensor | None = step.read_step(*given)
                else:
                    read = step.read_prompt(*given, last_token(angles, masks), answers)
                return None if read is None else self.norm(self.streams.join(read))[:, 0]
        owners = len(c.owners)
        for layer, row in zip(self.layers[:owners], per_layer[:owners], strict=True):
            streams = layer(streams, row, angles, masks, cache)
        if not answers:
            return None
        streams = streams[:, -1:]
        angles, masks = last_token(angles, masks)
        for layer, row in zip(self.layers[owners:], per_layer[owners:], strict=True):
            streams = layer(streams, row[:, -1:], angles, masks, cache)
        return self.norm(self.streams.join(streams))[:, 0]

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states [..., D] → float32 logits [..., V] through the tied head."""
        return self.embedding.logits(hidden, cap=self.config.logit_softcap)


def last_token(angles: Angles, masks: Masks) -> tuple[Any, Masks]:
    """The angles and masks of each row's last token alone."""
    last = tuple(tuple(part[:, :, -1:] for part in pair) for pair in angles)
    return last, (masks[0][:, :, -1:], masks[1][:, :, -1:])
