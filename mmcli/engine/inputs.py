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

    def to(self, device: torch.device, dtype: torch.dtype) -> "Inputs":
        """The same batch on a device; pixels also change their type."""
        pixels = None if self.pixels is None else self.pixels.to(device, dtype)
        return replace(self, tokens=self.tokens.to(device), valid=self.valid.to(device), pixels=pixels)


def pad_left(rows: list[list[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Token rows of any lengths → (tokens [B, T], valid [B, T])."""
    width = max(len(row) for row in rows)
    tokens = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
    valid = torch.tensor([[False] * (width - len(row)) + [True] * len(row) for row in rows])
    return tokens, valid
