"""What a processor hands to a model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmcli.engine.device import sent, sent_together
from mmcli.engine.logits import LogitsProcessor
from mmcli.engine.search import Search


@dataclass(frozen=True)
class Inputs:
    """A batch of prefixes, padded on the left, with the images and audio that they are about.

    Images are a list, since they need not have one shape: a family with one square encoder stacks them, others read
    tiles, patches or any aspect. Which row an image belongs to follows from the tokens that keep its place.
    """

    tokens: Tensor  # [B, T] token ids; places of soft tokens hold the family's image token
    valid: Tensor  # [B, T] True where there is a token
    images: tuple[Tensor, ...] = ()
    """All rows' images in order, each in the shape that the family's encoder reads: [3, height, width], tiles
    [tiles, 3, height, width], patches [P, D], …"""
    image_layouts: tuple[tuple[int, ...], ...] = ()
    """For each image what its numbers do not tell, where a family needs it: its grid of tiles or patches, …"""
    context: Any = None  # what else the family's model reads, made on its device already; row i belongs to row i
    audio: Tensor | None = None  # [pieces, F, mels] features of all rows' audio in order, zeros behind short pieces
    audio_valid: Tensor | None = None  # [pieces, F] True where there is audio
    processor: LogitsProcessor | None = None  # what may be written in answer to these rows; None: anything
    search: Search | None = None  # how the model's publisher had it search; None: as `engine/beams.py` does by itself

    def to(self, device: torch.device, dtype: torch.dtype) -> "Inputs":
        """The same batch on a device; images and audio also change their type, there: a GPU does so at once, where the
        threads of a busy CPU would wait for each other."""
        return replace(
            self,
            tokens=sent(self.tokens, device),
            valid=sent(self.valid, device),
            images=sent_together(self.images, device, dtype),
            audio=None if self.audio is None else sent(self.audio, device).to(dtype),
            audio_valid=None if self.audio_valid is None else sent(self.audio_valid, device),
        )


def joined(parts: Sequence[Inputs]) -> Inputs:
    """Batches as one, their rows in order. Their processors are left to the caller.

    Raises ValueError for what is made for a batch as a whole: a context, audio, a search.
    """
    if any(part.context is not None or part.audio is not None or part.search is not None for part in parts):
        raise ValueError("a context, audio and a search are made for a whole batch")
    width = max(part.tokens.shape[1] for part in parts)
    padding = [(width - part.tokens.shape[1], 0) for part in parts]
    return Inputs(
        torch.cat([F.pad(part.tokens, more) for part, more in zip(parts, padding, strict=True)]),
        torch.cat([F.pad(part.valid, more) for part, more in zip(parts, padding, strict=True)]),
        tuple(image for part in parts for image in part.images),
        tuple(layout for part in parts for layout in part.image_layouts),
    )


def pad_left(rows: list[list[int]], pad: int, least: int = 0) -> tuple[Tensor, Tensor]:
    """Token rows of any lengths → (tokens [B, T], valid [B, T]), T as long as the longest and at least `least`."""
    width = max(least, *(len(row) for row in rows))
    tokens = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
    valid = torch.tensor([[False] * (width - len(row)) + [True] * len(row) for row in rows])
    return tokens, valid
