"""From the small mask of an object to the image's own pixels."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from mmcli import rle
from mmcli.output.schema import Record

STRIP = 1 << 20  # pixels of a mask stretched at a time


def paste_mask(mask: np.ndarray, box: tuple[int, int, int, int], width: int, height: int) -> np.ndarray:
    """A float mask [64, 64], positive inside, stretched over the pixels of `box` → boolean mask [height, width].

    `box` is x0 y0 x1 y1 as `decode.locations.pixel_box` gives it: inside the image, not empty. The map is resized
    bilinearly and cut at 0 afterwards, as big_vision's evaluator does: cutting first would make stairs.
    """
    x0, y0, x1, y1 = box
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise ValueError(f"the box {box} is empty or leaves the {width} × {height} picture")
    small = Image.fromarray(np.ascontiguousarray(mask, dtype=np.float32))
    # Widths first, as Pillow itself does, then heights in strips: the floats of a whole image would be gigabytes.
    wide = small.resize((x1 - x0, small.height), Image.Resampling.BILINEAR)
    whole = np.zeros((height, width), dtype=bool, order="F")  # by columns, as run-length encoding goes over it
    step = max(STRIP // (y1 - y0), 1)
    for left in range(0, wide.width, step):
        right = min(left + step, wide.width)
        strip = wide.crop((left, 0, right, wide.height)).resize((right - left, y1 - y0), Image.Resampling.BILINEAR)
        whole[y0:y1, x0 + left : x0 + right] = np.asarray(strip) > 0
    return whole


def polygon_mask(polygons: Sequence[Sequence[float]], width: int, height: int) -> np.ndarray:
    """The pixels inside of or on any of some polygons (x and y by turns, in pixels) → boolean mask [height, width]."""
    canvas = Image.new("1", (width, height))
    pen = ImageDraw.Draw(canvas)
    for points in polygons:
        pen.polygon(list(points), fill=1, outline=1)
    return np.asarray(canvas)


def mask_image(record: Record) -> Image.Image:
    """All masks of a record of one image as an image of its size: 255 where an object is, 0 elsewhere."""
    pixels = np.zeros((record.height or 0, record.width or 0), dtype=np.uint8)
    for found in record.objects:
        if found.mask is not None:
            np.copyto(pixels, 255, where=rle.decode(found.mask))
    return Image.fromarray(pixels)
