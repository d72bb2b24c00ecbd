"""From token ids to boxes, masks' codes and labels: pure functions that import neither torch nor numpy."""

from dataclasses import dataclass

LOCATIONS = 1024  # <loc0000> … <loc1023>
MASK_CODES = 128  # <seg000> … <seg127>
CORNERS, CODES = 4, 16  # tokens of a box, and of a mask


@dataclass(frozen=True)
class Vocabulary:
    """Where a tokenizer keeps the location and the mask tokens: the ids of <loc0000> and <seg000>."""

    loc_start: int
    seg_start: int

    def location(self, token: int) -> int | None:
        """NNNN of the token <locNNNN>, or None for any other token."""
        value = token - self.loc_start
        return value if 0 <= value < LOCATIONS else None

    def mask_code(self, token: int) -> int | None:
        """NNN of the token <segNNN>, or None for any other token."""
        value = token - self.seg_start
        return value if 0 <= value < MASK_CODES else None
