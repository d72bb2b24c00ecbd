"""Decoders that read images among their text, each token seeing what stands before it."""

from typing import Any, Protocol

import torch
from torch import Tensor

from mmcli.engine.hand_over import Found, HandOver
from mmcli.engine.inputs import Inputs
from mmcli.engine.kv_cache import KVCache
from mmcli.engine.model import GenerativeModel
from mmcli.engine.row_state import RowState
from mmcli.layers import kernels
from mmcli.layers.decoder import LlamaConfig, LlamaDecoder

# Tokens read at once: beyond it memory would grow with their square, and nothing gets faster.
CHUNK = 1024


class CausalDecoder(Protocol):
    """What is asked of a decoder; `LlamaDecoder` says what each does."""

    config: Any  # `window` in it: tokens that sliding layers attend to; None: there are none

    def new_cache(self, batch: int, length: int) -> KVCache: ...

    def embed(self, tokens: Tensor) -> Tensor: ...

    def __call__(
        self,
        x: Tensor,
        positions: Tensor,
        mask: Tensor,
        cache: KVCache,
        sliding_mask: Tensor | None = None,
        last_only: bool = False,
    ) -> Tensor: ...

    def logits(self, hidden: Tensor) -> Tensor: ...


class CausalReader(GenerativeModel):
    """Base of families whose images become vectors in the places of `image_token`, or what its layers attend to.

    A subclass sets `decoder`, whatever its kind, and supplies `soft_tokens` or `context`. Rows may be read behind what
    the cache holds, so that a conversation goes on.
    """

    decoder: CausalDecoder
    rows_join = True

    def __init__(self, image_token: int | None = None):
        """`image_token` may be any number: the decoder need have no row for it. None: no image stands in the text."""
        super().__init__()
        self.image_token = image_token

    def soft_tokens(self, inputs: Inputs) -> Tensor:
        """All images of a batch → the vectors of their places in order, [places, D]."""
        raise NotImplementedError

    def context(self, inputs: Inputs) -> RowState | None:
        """What layers of the decoder find in `cache.context` from now on; None: it stays as it is."""
        return None

    def new_cache(self, batch: int, length: int) -> KVCache:
        return self.decoder.new_cache(batch, length)

    def embed(self, inputs: Inputs) -> Tensor:
        """Vectors of a batch's tokens, with those of images in their places: [B, T, D].

        Raises ValueError where there are more or fewer places than vectors.
        """
        if self.image_token is None:
            return self.decoder.embed(inputs.tokens)
        is_image = inputs.tokens == self.image_token
        x = self.decoder.embed(inputs.tokens.masked_fill(is_image, 0))
        if not inputs.images:
            return x
        soft, places = self.soft_tokens(inputs), is_image.sum()
        if x.is_cuda and torch.cuda.is_current_stream_capturing():  # which must not wait for the device
            torch._assert_async(places == len(soft))
        elif len(soft) != places:
            raise ValueError(f"{len(soft)} vectors of images for {places} places")
        return x.masked_scatter(is_image[..., None], soft.to(x.dtype))

    def prefill(self, inputs: Inputs, cache: KVCache) -> Tensor:
        """Read a batch behind what the cache holds → logits [B, V] of the first token to write.

        Padding may stand on the left, in front of a row's first token only.
        """
        if (context := self.context(inputs)) is not None:
            cache.context = context
        x = self.embed(inputs)
        hidden = x
        for vectors, valid in zip(x.split(CHUNK, dim=1), inputs.valid.split(CHUNK, dim=1), strict=True):
            positions = (cache.positions[:, None] + valid.long().cumsum(dim=1) - 1).clamp(min=0)
            cache.extend(valid)
            count, window = vectors.shape[1], self.decoder.config.window
            sliding = None if window is None else cache.causal_mask(count, window)
            hidden = self.decoder(vectors, positions, cache.causal_mask(count), cache, sliding, last_only=True)
        return self.decoder.logits(hidden[:, -1])

    def likeliest(self, logits: Tensor, hand_over: HandOver | None = None) -> Found | None:
        return kernels.likeliest(logits, hand_over)

    def step(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """Read one token a row, tokens [B] → logits [B, V] of the next."""
        positions = cache.positions[:, None].clone()
        cache.extend_by_one()
        window = self.decoder.config.window
        sliding = None if window is None else cache.step_mask(window)
        x = self.decoder.embed(tokens[:, None])
        return self.decoder.logits(self.decoder(x, positions, cache.step_mask(), cache, sliding)[:, -1])


class CausalLM(CausalReader):
    """The same with a Llama-type decoder."""

    decoder: LlamaDecoder

    def __init__(self, config: LlamaConfig, image_token: int):
        super().__init__(image_token)
        self.decoder = LlamaDecoder(config)
