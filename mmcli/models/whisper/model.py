"""Whisper (Radford et al., arXiv:2212.04356): an encoder of audio, and a decoder that attends to it while it writes."""

from collections.abc import Iterable, Iterator
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcli.engine import cuda_graph
from mmcli.engine.cross_attention import CrossAttentionKV, Layers
from mmcli.engine.device import bfloat16_pays, int8_pays
from mmcli.engine.inputs import Inputs
from mmcli.engine.kv_cache import KVCache
from mmcli.engine.model import GenerativeModel
from mmcli.layers import int8_attention, kernels
from mmcli.layers.attention import additive
from mmcli.layers.encoder_decoder import MLP, CrossAttention, SelfAttention, by_frames
from mmcli.layers.int8 import Int8Embedding, Quantisable, ReadInInt8, in_int8, read_in_int8
from mmcli.layers.int8_step import head_kind, step_kind
from mmcli.models.stacks import StackConfig
from mmcli.models.whisper.config import WhisperConfig


class EncoderLayer(nn.Module):
    """One encoder layer, normalised before each half."""

    def __init__(self, width: int, stack: StackConfig, epsilon: float):
        super().__init__()
        self.norm_attention = nn.LayerNorm(width, eps=epsilon)
        self.attention = SelfAttention(width, stack.heads)
        self.norm_mlp = nn.LayerNorm(width, eps=epsilon)
        self.mlp = MLP(width, stack.mlp_width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.attention.attend(by_frames(self._qkv, x))
        return by_frames(self._add, x, y)

    def _qkv(self, x: Tensor) -> Tensor:
        qkv = self.attention.project(self.norm_attention(x))
        return qkv.to(self.attention.short or qkv.dtype)

    def _add(self, x: Tensor, y: Tensor) -> Tensor:
        x = x + self.attention.out(y.to(x.dtype))
        return x + self.mlp(self.norm_mlp(x))


class DecoderLayer(nn.Module):
    """One decoder layer: to the text so far, to the audio, feed-forward."""

    def __init__(self, width: int, stack: StackConfig, epsilon: float):
        super().__init__()
        self.norm_attention = nn.LayerNorm(width, eps=epsilon)
        self.attention = SelfAttention(width, stack.heads)
        self.norm_cross = nn.LayerNorm(width, eps=epsilon)
        self.cross = CrossAttention(width, stack.heads)
        self.norm_mlp = nn.LayerNorm(width, eps=epsilon)
        self.mlp = MLP(width, stack.mlp_width)


class Encoder(nn.Module):
    """Log-mel windows [B, mels, 2F] → states [B, F, D]."""

    def __init__(self, config: WhisperConfig):
        super().__init__()
        width = config.width
        self.conv1 = nn.Conv1d(config.mels, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.position = nn.Parameter(torch.zeros(config.audio_positions, width))
        self.layers = nn.ModuleList(
            EncoderLayer(width, config.encoder, config.norm_epsilon) for _ in range(config.encoder.depth)
        )
        self.norm = nn.LayerNorm(width, eps=config.norm_epsilon)

    def forward(self, features: Tensor) -> Tensor:
        x = F.gelu(self.conv2(F.gelu(self.conv1(features.to(self.conv1.weight))))).mT.to(self.position) + self.position
        x = x.contiguous()  # else every sum and norm below would go through memory in steps as long as a recording
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)


class Decoder(nn.Module):
    """Text with learned positions; its table is also the head."""

    def __init__(self, config: WhisperConfig):
        super().__init__()
        self.embedding: nn.Module = nn.Embedding(config.vocabulary, config.width)
        self.position = nn.Parameter(torch.zeros(config.text_positions, config.width))
        self.layers = nn.ModuleList(
            DecoderLayer(config.width, config.decoder, config.norm_epsilon) for _ in range(config.decoder.depth)
        )
        self.norm = nn.LayerNorm(config.width, eps=config.norm_epsilon)


class EncodedAudio(CrossAttentionKV):
    """What the decoder attends to: every layer's keys and values of B windows of audio, [B, N, F, H] each."""

    def __init__(self, layers: Layers, valid: Tensor | None = None):
        super().__init__(layers, valid)
        self.scores: list[Tensor] = []  # where watched heads looked, [B, heads, T, F] a layer
        self.at_start: Tensor | None = None  # logits [B, V] behind <|startoftranscript|> in the last prompt read


class Whisper(Quantisable, GenerativeModel):
    """The whole model, as the engine takes it: `inputs.context` is the `EncodedAudio` that the decoder attends to."""

    def __init__(self, config: WhisperConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.head: nn.Module | None = None  # the table in another arithmetic, for the head alone

    def expect_int8(self) -> None:
        table = self.decoder.embedding
        if int8_pays() and isinstance(table, nn.Embedding):
            self.decoder.embedding = ReadInInt8(table)
            read_in_int8(self.encoder.layers)
            read_in_int8(self.decoder.layers)

    def quantise(self) -> bool:
        """Choose faster arithmetic for the CPU; texts stay as good.

        Products in int8 where the CPU has them; the encoder's attention and convolutions, and the keys and values of
        the audio, in bfloat16 where it has that.
        """
        if bfloat16_pays():
            for convolution in (self.encoder.conv1, self.encoder.conv2):
                convolution.to(torch.bfloat16)
            for part in self.modules():
                if isinstance(part, CrossAttention):
                    part.short = torch.bfloat16
            for layer in cast(Iterable[EncoderLayer], self.encoder.layers):
                layer.attention.short = torch.bfloat16
        if not int8_pays():
            return False
        for part in self.modules():
            if isinstance(part, CrossAttention):
                part.integers = int8_attention.works()
        table = self.decoder.embedding
        if isinstance(table, ReadInInt8):
            self.head = head_kind().rounded(table.whole, table.scale, None)
            self.decoder.embedding = Int8Embedding.rounded(table.whole, table.scale, table.dtype)
        else:
            self.head = head_kind()(table.get_parameter("weight"), None)
            self.decoder.embedding = Int8Embedding(table.get_parameter("weight"))
        in_int8(self.encoder.layers)
        in_int8(self.decoder.layers, step_kind())
        return True

    def encode(self, features: Tensor) -> EncodedAudio:
        """Log-mel windows [B, mels, 2F] → what the decoder attends to."""
        features = features.to(self.encoder.position.device)
        if features.device.type != "cpu":
            parts = iter(cuda_graph.encode(self, self._parts, features))
            return EncodedAudio(list(zip(parts, parts, strict=True)))
        # On a CPU one window at a time stays in its cache; a GPU wants them all.
        layers: list[tuple[Tensor, ...]] = []
        for row, window in enumerate(features.split(1)):
            for number, layer in enumerate(self._keys_values(window)):
                if number == len(layers):
                    layers.append(tuple(part.new_empty(len(features), *part.shape[1:]) for part in layer))
                for whole, part in zip(layers[number], layer, strict=True):
                    whole[row] = part[0]
        return EncodedAudio(layers)

    def _parts(self, features: Tensor) -> list[Tensor]:
        return [part.contiguous() for keys_values in self._keys_values(features) for part in keys_values]

    def _keys_values(self, features: Tensor) -> Iterator[tuple[Tensor, ...]]:
        states = self.encoder(features)
        return (layer.cross.keys_values(states) for layer in cast(Iterable[DecoderLayer], self.decoder.layers))

    def new_cache(self, batch: int, length: int) -> KVCache:
        config, like = self.config, self.decoder.position
        stack = config.decoder
        return KVCache(stack.depth, batch, length, stack.heads, config.width // stack.heads, like.dtype, like.device)

    def prefill(self, inputs: Inputs, cache: KVCache) -> Tensor:
        """Read a batch of prompts into an empty cache → logits [B, V] of the first token to write."""
        cache.context = inputs.context
        hidden = self.read(inputs.tokens, inputs.valid, cache)
        start = (inputs.tokens == self.config.start).long().argmax(dim=1)
        logits = self.logits(hidden[:, -1])
        # Whether anybody speaks is asked right behind the start (section 4.5 of the paper).
        asked = hidden[torch.arange(len(start), device=start.device), start]
        inputs.context.at_start = logits if inputs.tokens.shape[1] == 1 else self.logits(asked)
        return logits

    def step(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """Read one token a row, tokens [B] → logits [B, V] of the next."""
        encoded = cache.context
        if kernels.chosen(self.decoder.position[:1].expand(len(tokens), 1, -1), cache):
            from mmcli.models.whisper import step  # imports Triton

            if isinstance(encoded, EncodedAudio) and step.fits(self.decoder, len(tokens), encoded):
                return self.logits(step.read(self.decoder, tokens, cache, encoded))
        return self.logits(self.read(tokens[:, None], None, cache)[:, 0])

    def read(
        self, tokens: Tensor, valid: Tensor | None, cache: KVCache, watched: dict[int, list[int]] | None = None
    ) -> Tensor:
        """Run tokens [B, T] through the decoder, after what the cache holds → normed states [B, T, D].

        `valid` [B, T] tells padding on the left; None means that all are real. Where `watched` (layer → heads) look is
        left in `cache.context.scores`, layer by layer.
        """
        rows, count = tokens.shape
        positions = cache.positions[:, None] + torch.arange(count, device=tokens.device)
        if valid is None:
            valid = torch.ones_like(tokens, dtype=torch.bool)
        else:
            positions = (cache.positions[:, None] + valid.long().cumsum(dim=1) - 1).clamp(min=0)
        cache.extend(valid)
        mask = cache.step_mask() if count == 1 else cache.causal_mask(count)
        decoder, encoded = self.decoder, cache.context
        assert isinstance(encoded, EncodedAudio)
        x = decoder.embedding(tokens) + decoder.position[positions]
        if count == 1 and x.device.type == "cpu":
            mask = additive(mask, x.dtype)  # once for all layers
        for number, layer in enumerate(cast(Iterable[DecoderLayer], decoder.layers)):
            x = x + layer.attention(layer.norm_attention(x), mask, cache, number)
            asking = layer.norm_cross(x)
            if watched and number in watched:
                encoded.scores.append(layer.cross.scores(asking, encoded.layers[number], watched[number]))
            x = x + layer.cross(asking, encoded.layers[number])
            x = x + layer.mlp(layer.norm_mlp(x))
        return decoder.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """States [..., D] → logits [..., V] in float32."""
        if self.head is None:
            return kernels.float_logits(hidden, self.decoder.embedding.get_parameter("weight"))
        return self.head(hidden).float()
