"""Masks as COCO's compressed run-length encoding, equal to pycocotools.

Runs alternate from background on, column by column. From the third run on a run is written as its difference to the
one two before; numbers are cut into groups of five bits, low ones first, a sixth bit says that more follow, and 48 is
added to make a printable character (cocodataset/cocoapi `common/maskApi.c`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from mmcli.types import Doc, brief

LONGEST = 60  # bits of a run

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Mask:
    """Which pixels of an image belong to an object: COCO's compressed run-length encoding, as pycocotools reads it."""

    size: Annotated[tuple[int, int], Doc("Height and width of the image.")]
    counts: Annotated[str, Doc("The runs as text.")]

    def __repr__(self) -> str:
        return brief(self)

    @property
    def pixels(self) -> "np.ndarray":
        """The mask itself: boolean [height, width]. Raises ValueError where the runs do not fill the size."""
        return decode(self)


def encode(mask: "np.ndarray") -> Mask:
    """A boolean mask [H, W] → its encoding."""
    import numpy as np

    height, width = mask.shape
    flat = np.asarray(mask, dtype=bool).ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate([[0] if flat.size and flat[0] else [], [0], changes, [flat.size]])
    runs = np.diff(edges).astype(np.int64).tolist()
    return Mask((height, width), "".join(_write(runs)))


def decode(mask: Mask) -> "np.ndarray":
    """An encoding → the boolean mask [H, W]. Raises ValueError where the runs do not fill the size."""
    import numpy as np

    height, width = mask.size
    runs = _runs(mask)
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape((height, width), order="F")


def fills(mask: Mask) -> bool:
    """Whether the runs fill the size, so that the mask can be decoded."""
    try:
        return bool(_runs(mask)) and min(mask.size) > 0
    except ValueError:
        return False


def is_empty(mask: Mask) -> bool:
    """Whether no pixel is inside: the mask itself is not made."""
    return not any(list(_read(mask.counts))[1::2])


def _write(runs: list[int]) -> Iterator[str]:
    for i, run in enumerate(runs):
        value = run - runs[i - 2] if i > 2 else run
        more = True
        while more:
            group, value = value & 0x1F, value >> 5
            # The fifth bit is the sign: only when the rest repeats it may the number end here.
            more = value != (-1 if group & 0x10 else 0)
            yield chr(group + (0x20 if more else 0) + 48)


def _runs(mask: Mask) -> list[int]:
    height, width = mask.size
    runs = list(_read(mask.counts))
    if sum(runs) != height * width or any(run < 0 for run in runs):
        raise ValueError(f"the runs of the mask do not fill {width} × {height} pixels")
    return runs


def _read(counts: str) -> Iterator[int]:
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        group = ord(character) - 48
        if not 0 <= group < 64:
            raise ValueError(f"{character!r} does not belong into the runs of a mask")
        value |= (group & 0x1F) << shift
        shift += 5
        if shift > LONGEST:
            raise ValueError("a run of the mask is longer than any picture")
        if group & 0x20:
            continue
        if group & 0x10:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        yield runs[-1]
        value = shift = 0
    if shift:
        raise ValueError("the runs of the mask end within a number")
