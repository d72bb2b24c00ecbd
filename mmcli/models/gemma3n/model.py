"""Gemma 3n: images through MobileNetV5, recordings through a conformer, and a decoder that reads both among its
text."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmcli.engine.hand_over import Found, HandOver
from mmcli.engine.inputs import Inputs
from mmcli.engine.kv_cache import KVCache
from mmcli.engine.model import GenerativeModel
from mmcli.layers import kernels
from mmcli.layers.fusing import Fusable
from mmcli.models.gemma3n.config import Gemma3nConfig
from mmcli.models.gemma3n.decoder import Decoder
from mmcli.models.gemma3n.encoders import AudioEncoder, VisionEncoder

# Tokens read at once: beyond it memory would grow with their square, and nothing gets faster.
CHUNK = 1024

# Images or recordings in a tower at once: an hour's recording is 140 recordings, and the first layers' maps are large.
AT_ONCE = 16


class Gemma3n(Fusable, GenerativeModel):
    """The whole model.

    All reading is causal, also of images. No id is forbidden in the answer, as in the reference.
    """

    rows_join = True

    @property
    def prefill_records(self) -> bool:  # type: ignore[override]
        """Where the per-layer table lies on the model's device."""
        return self.decoder.per_layer.table.weight.device == self.like.device

    def __init__(self, config: Gemma3nConfig):
        super().__init__()
        self.config = config
        self.decoder = Decoder(config.text)
        self.vision = VisionEncoder(config.vision, config.text.width) if config.vision else None
        self.audio = AudioEncoder(config.audio, config.text.width) if config.audio else None
        self.hard: Tensor | None = None  # [ids, D]: what ids from the first hard token on are to the decoder

    def fuse(self) -> None:
        """Pass the ids of images and audio through their embedders once: the same comes out whatever the text."""
        self.hard = self.hard_tokens()

    def hard_tokens(self) -> Tensor | None:
        """What the ids from the first hard token on are to the decoder, [ids, D]; None for a decoder alone."""
        if self.hard is not None or self.vision is None or self.audio is None:
            return self.hard
        assert self.config.vision and self.config.audio
        images, audios = self.config.vision.first, self.config.audio.first
        own = self.vision.embedder.hard(audios - images)
        return torch.cat((own, self.audio.embedder.hard(self.config.text.vocabulary - audios)))

    def new_cache(self, batch: int, length: int) -> KVCache:
        """One entry for every layer with keys of its own. Sliding layers keep all of theirs: others attend to them."""
        c, like = self.config.text, self.decoder.norm.weight
        return KVCache(len(c.owners), batch, length, c.key_heads, c.head_width, like.dtype, like.device)

    def embed(self, tokens: Tensor) -> Tensor:
        """Ids [B, T] of text and of images and audio → [B, T, D]."""
        x, hard = self.decoder.embed(tokens), self.hard_tokens()
        if hard is None or self.config.vision is None:
            return x
        place = tokens - self.config.vision.first
        return torch.where(place[..., None] >= 0, F.embedding(place.clamp(min=0), hard), x)

    def embed_inputs(self, inputs: Inputs) -> Tensor:
        """The same, with the soft tokens of images and recordings in their places."""
        x = self.embed(inputs.tokens)
        if inputs.images:
            assert self.vision and self.config.vision
            parts = (inputs.images[first : first + AT_ONCE] for first in range(0, len(inputs.images), AT_ONCE))
            soft = torch.cat([self.vision(torch.stack(part)) for part in parts])
            x = _fill(x, inputs.tokens == self.config.vision.token, soft)
        if inputs.audio is not None:
            hard = self.hard_tokens()
            assert self.audio and self.config.audio and hard is not None and inputs.audio_valid is not None
            pieces = zip(inputs.audio.split(AT_ONCE), inputs.audio_valid.split(AT_ONCE), strict=True)
            soft = torch.cat([self.audio(audios, valid, hard[-1]) for audios, valid in pieces])
            x = _fill(x, inputs.tokens == self.config.audio.token, soft)
        return x

    def prefill(self, inputs: Inputs, cache: KVCache) -> Tensor:
        """Read a batch behind what the cache holds → logits [B, V] of the first token to write.

        Padding may stand on the left, in front of a row's first token only.
        """
        x = self.embed_inputs(inputs)
        end = cache.length + x.shape[1]
        parts = zip(x.split(CHUNK, 1), inputs.tokens.split(CHUNK, 1), inputs.valid.split(CHUNK, 1), strict=True)
        for vectors, tokens, valid in parts:
            positions = (cache.positions[:, None] + valid.long().cumsum(dim=1) - 1).clamp(min=0)
            cache.extend(valid)
            count, window = tokens.shape[1], self.config.text.window
            masks = cache.causal_mask(count), cache.causal_mask(count, window)[..., 1 - window - count :]
            hidden = self.decoder(vectors, self._rows(tokens), positions, masks, cache, answers=cache.length == end)
        return self.decoder.logits(hidden)

    @property
    def like(self) -> Tensor:
        return self.decoder.norm.weight

    def before_step(self, tokens: Tensor) -> Tensor | None:
        """The part of a step that waits for the host: tokens [B] → their rows of the per-layer table [B, L·P].

        None where the table lies on the model's device: then the step looks them up itself.
        """
        table = self.decoder.per_layer.table
        return None if table.weight.device == self.like.device else self._rows(tokens)

    def likeliest(self, logits: Tensor, hand_over: HandOver | None = None) -> Found | None:
        return kernels.likeliest(logits, hand_over)

    def step(self, tokens: Tensor, cache: KVCache, rows: Tensor | None = None) -> Tensor:
        """Read one token a row, tokens [B] → logits [B, V] of the next. `rows` are what `before_step` gave."""
        rows = self._rows(tokens) if rows is None else rows
        positions = cache.positions[:, None].clone()
        cache.extend_by_one()
        masks = cache.step_mask(), cache.step_mask(self.config.text.window)
        return self.decoder.logits(self.decoder(self.embed(tokens[:, None]), rows[:, None], positions, masks, cache))

    def _rows(self, tokens: Tensor) -> Tensor:
        return self.decoder.per_layer.table.rows(tokens, like=self.like)


def _fill(x: Tensor, places: Tensor, soft: Tensor) -> Tensor:
    """Put soft tokens [N, P, D] into the places of [B, T, D], in order."""
    return x.masked_scatter(places[..., None], soft.to(x.dtype))
