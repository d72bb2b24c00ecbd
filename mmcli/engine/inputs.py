"""What a processor hands to a model."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Inputs:
    """A batch of prefixes, padded on the left."""

    tokens: Tensor  # [B, T] token ids; places of soft tokens hold the family's image token
    valid: Tensor  # [B, T] True where there is a token
    pixels: Tensor | None  # [pictures, 3, side, side], all rows' pictures in order; None without pictures
    context: Any = None  # what else the family's model reads, made on its device already; row i belongs to row i
    sounds: Tensor | None = None  # [sounds, F, mels] features of all rows' sounds in order, zeros behind the shorter
    sounds_valid: Tensor | None = None  # [sounds, F] True where there is sound

    def to(self, device: torch.device, dtype: torch.dtype) -> "Inputs":
        """The same batch on a device; pixels and sounds also change their type."""

        def moved(tensor: Tensor | None, dtype: torch.dtype | None = None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, dtype)

        return replace(
            self,
            tokens=self.tokens.to(device),
            valid=self.valid.to(device),
            pixels=moved(self.pixels, dtype),
            sounds=moved(self.sounds, dtype),
            sounds_valid=moved(self.sounds_valid),
        )


def pad_left(rows: list[list[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Token rows of any lengths → (tokens [B, T], valid [B, T])."""
    width = max(len(row) for row in rows)
    tokens = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
    valid = torch.tensor([[False] * (width - len(row)) + [True] * len(row) for row in rows])
    return tokens, valid
