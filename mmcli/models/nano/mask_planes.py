"""What masks are cut from, made once for an image."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class MaskPlanes:
    """Of P images."""

    maps: Tensor  # [P, C, h, w] as `MaskHead.plane` makes them
    pixels: Tensor  # [P, 3, side, side] in 0..1

    def __len__(self) -> int:
        return len(self.pixels)

    def of(self, images: Tensor) -> "MaskPlanes":
        """The planes of these images [B], one for each row."""
        return MaskPlanes(self.maps.index_select(0, images), self.pixels.index_select(0, images))

    def first(self, count: int) -> "MaskPlanes":
        """The planes of the first images alone."""
        return MaskPlanes(self.maps[:count], self.pixels[:count])

    @classmethod
    def joined(cls, parts: "list[MaskPlanes]") -> "MaskPlanes":
        return cls(torch.cat([part.maps for part in parts]), torch.cat([part.pixels for part in parts]))
