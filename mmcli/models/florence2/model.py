"""Florence-2 (Xiao et al., arXiv:2311.06242): a DaViT tower, a projector, and BART, which reads images and prompts."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mmcli.engine.device import bfloat16_pays, int8_pays
from mmcli.engine.inputs import Inputs
from mmcli.engine.kv_cache import KVCache
from mmcli.engine.model import GenerativeModel
from mmcli.errors import UsageError
from mmcli.layers.int8 import Quantisable, in_int8, packed_kind
from mmcli.models.florence2.bart import Bart
from mmcli.models.florence2.config import Florence2Config
from mmcli.models.florence2.davit import DaViT
from mmcli.models.florence2.projector import Projector


@dataclass(frozen=True)
class Prompts:
    """What the encoder reads: the prompts of B rows, padded on the right, and which image each is about."""

    tokens: Tensor  # [B, T] ids behind the image's soft tokens
    valid: Tensor  # [B, T] True where there is a token
    images: tuple[int, ...]  # row i is about `Inputs.images[images[i]]`; several rows may be about one


class Florence2(Quantisable, GenerativeModel):
    """The whole model: `inputs.context` are the `Prompts` that it reads; `inputs.tokens` begin what it writes."""

    read_each_step = ("language",)

    def __init__(self, config: Florence2Config):
        super().__init__()
        self.config = config
        self.vision = DaViT(config.vision)
        self.projector = Projector(config)
        self.language = Bart(config.text, head_bias=not config.native)

    def quantise(self) -> bool:
        """bfloat16 where this CPU multiplies it natively, else products of the tower in int8 where it has those.

        The tower is nine tenths of reading an image, and three quarters of it are its linear layers.
        """
        if bfloat16_pays():
            self.to(torch.bfloat16)
            return False
        if not int8_pays():
            return False
        in_int8(self.vision, packed_kind())
        return True

    def new_cache(self, batch: int, length: int) -> KVCache:
        """As the base's. Raises UsageError for more tokens than there are positions for."""
        text, like = self.config.text, self.language.embedding.weight
        if length > text.positions:
            raise UsageError(f"This Florence-2 writes at most {text.positions} tokens", "Lower --max-tokens")
        stack = text.decoder
        return KVCache(stack.depth, batch, length, stack.heads, text.width // stack.heads, like.dtype, like.device)

    def encode(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Images and prompts → encoder states [B, P + T, D], and which of them are real [B, P + T]."""
        prompts = inputs.context
        assert isinstance(prompts, Prompts)
        device = self.language.embedding.weight.device
        soft = self.projector(self.vision(torch.stack(inputs.images)))[list(prompts.images)]
        there = torch.ones(soft.shape[:2], dtype=torch.bool, device=device)
        valid = torch.cat((there, prompts.valid.to(device)), dim=1)
        embedded = torch.cat((soft, self.language.embed(prompts.tokens.to(device))), dim=1)
        return self.language.encoder(embedded, valid), valid

    def prefill(self, inputs: Inputs, cache: KVCache) -> Tensor:
        """Read images and prompts, and the first tokens of the answers → logits [B, V] of the next."""
        cache.context = self.language.decoder.keys_values(*self.encode(inputs))
        return self.read(inputs.tokens, cache)

    def step(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """Read one token a row, tokens [R] → logits [R, V] of the next."""
        return self.read(tokens[:, None], cache)

    def read(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """Tokens [R, T] behind what the cache holds → logits [R, V] of the next."""
        language = self.language
        return language.logits(language.decoder(language.embed(tokens), cache)[:, -1])
