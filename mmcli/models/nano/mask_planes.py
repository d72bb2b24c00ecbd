"""What masks are cut from, made for an image when its first mask is."""

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor


class MaskPlanes:
    """Of P images."""

    def __init__(self, pixels: Tensor, make: Callable[[], Tensor]):
        """`make` gives the `maps`."""
        self.pixels = pixels  # [P, 3, side, side] in 0..1
        self._make: Callable[[], Tensor] | None = make

    @cached_property
    def maps(self) -> Tensor:
        """[P, C, h, w] as `MaskHead.plane` makes them."""
        assert self._make is not None
        made, self._make = self._make(), None  # what they were made from is not needed any more
        return made

    def __len__(self) -> int:
        return len(self.pixels)

    def of(self, images: Tensor) -> "MaskPlanes":
        """The planes of these images [B], one for each row."""
        return MaskPlanes(self.pixels.index_select(0, images), lambda: self.maps.index_select(0, images))

    def first(self, count: int) -> "MaskPlanes":
        """The planes of the first images alone."""
        return self if count == len(self) else MaskPlanes(self.pixels[:count], lambda: self.maps[:count])

    @classmethod
    def joined(cls, parts: "list[MaskPlanes]", pixels: Tensor) -> "MaskPlanes":
        """The planes of all of the parts, whose pixels are these."""
        return cls(pixels, lambda: torch.cat([part.maps for part in parts]))
