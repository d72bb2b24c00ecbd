"""From the small mask of an object to the picture's own pixels."""

from collections.abc import Mapping

import numpy as np
from PIL import Image

from mmcli.output import rle


def paste_mask(mask: np.ndarray, box: tuple[int, int, int, int], width: int, height: int) -> np.ndarray:
    """A float mask [64, 64], positive inside, stretched over the pixels of `box` → boolean mask [height, width].

    `box` is x0 y0 x1 y1 as `decode.locations.pixel_box` gives it: inside the picture, not empty. The map is resized
    bilinearly and cut at 0 afterwards, as big_vision's evaluator does: cutting first would make stairs.
    """
    x0, y0, x1, y1 = box
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise ValueError(f"the box {box} is empty or leaves the {width} × {height} picture")
    small = Image.fromarray(np.ascontiguousarray(mask, dtype=np.float32))
    whole = np.zeros((height, width), dtype=bool)
    whole[y0:y1, x0:x1] = np.asarray(small.resize((x1 - x0, y1 - y0), Image.Resampling.BILINEAR)) > 0
    return whole


def mask_picture(record: Mapping) -> Image.Image:
    """All masks of a record as one picture of its size: 255 where an object is, 0 elsewhere."""
    whole = np.zeros((record["height"], record["width"]), dtype=bool)
    for found in record["objects"]:
        if found.get("mask"):
            whole |= rle.decode(found["mask"])
    return Image.fromarray(np.where(whole, np.uint8(255), np.uint8(0)))
