"""Hiding what was found: blurred or in coarse blocks, so that it cannot be recognised any more."""

from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageFilter

from mmcli import rle
from mmcli.decode.locations import pixel_box
from mmcli.output.schema import Object, Record

BLOCKS = 8  # along the longer side of an object, in which nothing can be recognised
MARGIN = 0.05  # of a box's sides: how much is hidden around it, since boxes are not exact


def redact(
    image: Image.Image, record: Record, *, blur: Iterable[str] = (), pixelate: Iterable[str] = ()
) -> Image.Image:
    """The image of a record, full size, with the objects of these labels hidden: a new one where there is anything.

    Where an object has a mask, its pixels and those around it are hidden; without one, or with an empty one, those of
    its box. `blur` and `pixelate` name labels as they were asked for, in any case of letters; "*" is every label.
    """
    canvas = image
    for labels, hide in ((_folded(pixelate), _blocks), (_folded(blur), _blurred)):
        for found in record.objects:
            if is_named(found, labels):
                canvas = canvas.copy() if canvas is image else canvas
                _hide(canvas, found, hide(canvas.crop(_room(found, canvas.size))))
    return canvas


def is_named(found: Object, labels: Iterable[str]) -> bool:
    """Whether an object's label is one of `labels`."""
    named = _folded(labels)
    return "*" in named or found.label.casefold().strip() in named


def _folded(labels: Iterable[str]) -> set[str]:
    return {label.casefold().strip() for label in labels}


def _room(found: Object, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The pixels of an object with a margin."""
    x0, y0, x1, y1 = found.box
    across, down = MARGIN * (x1 - x0), MARGIN * (y1 - y0)
    return pixel_box((x0 - across, y0 - down, x1 + across, y1 + down), *size)


def _blocks(part: Image.Image) -> Image.Image:
    scale = BLOCKS / max(part.size)
    small = part.resize([max(1, min(round(side * scale), side // 2 or 1)) for side in part.size], Image.Resampling.BOX)
    return small.resize(part.size, Image.Resampling.NEAREST)


def _blurred(part: Image.Image) -> Image.Image:
    """From blocks, so that no sharpening brings back what is not there any more."""
    return _blocks(part).filter(ImageFilter.GaussianBlur(max(part.size) / BLOCKS / 1.5))


def _hide(canvas: Image.Image, found: Object, hidden: Image.Image) -> None:
    box = _room(found, canvas.size)
    if found.mask is None or rle.is_empty(found.mask):
        canvas.paste(hidden, box)
        return
    x0, y0, x1, y1 = box
    inside = Image.fromarray(rle.decode(found.mask)[y0:y1, x0:x1].astype(np.uint8) * 255)
    reach = 2 * round(MARGIN * max(inside.size)) + 1
    wide = inside.filter(ImageFilter.GaussianBlur(reach / 2)).point(lambda value: 255 if value > 8 else 0)
    canvas.paste(hidden, box, wide)
