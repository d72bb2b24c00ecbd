"""Masks that people drew: as pixels of an image, and cut to a box as the mask codebook reads them."""

import numpy as np
from PIL import Image, ImageDraw

from mmcli.example import Box, Polygons, RunLengths
from mmcli.rle import Mask, decode

SIDE = 64  # of the codebook's masks
FINER = 4  # outlines are drawn so much larger and reduced, so that edges are soft
MOST_PIXELS = 1 << 24  # of such a drawing


def pixels(mask: Polygons | RunLengths, width: int, height: int) -> np.ndarray:
    """A mask as boolean [height, width]; run lengths are of their own size."""
    if isinstance(mask, RunLengths):
        return _decoded(mask)
    finer = FINER if width * height * FINER**2 <= MOST_PIXELS else 1
    return np.asarray(_drawn(mask, (0, 0, 1, 1), width, height, finer)) >= 128


def cut(mask: Polygons | RunLengths, box: Box) -> np.ndarray:
    """What a box (in shares of the sides) holds of a mask, stretched to float32 [64, 64]: the inner share of each."""
    if isinstance(mask, RunLengths):
        x0, y0, x1, y1 = box
        edges = (x0 * mask.width, y0 * mask.height, x1 * mask.width, y1 * mask.height)
        image = Image.fromarray(_decoded(mask).astype(np.float32))
        return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=edges))
    return np.asarray(_drawn(mask, box, SIDE, SIDE, FINER), np.float32) / 255


def _decoded(mask: RunLengths) -> np.ndarray:
    if isinstance(mask.counts, str):
        return decode(Mask((mask.height, mask.width), mask.counts))
    values = np.arange(len(mask.counts)) % 2 == 1
    return np.repeat(values, mask.counts).reshape((mask.height, mask.width), order="F")


def _drawn(mask: Polygons, box: Box, width: int, height: int, finer: int) -> Image.Image:
    """Outlines on a canvas that the box fills: 255 inside, 0 outside."""
    canvas = Image.new("L", (width * finer, height * finer))
    low, sides = box[:2], (box[2] - box[0], box[3] - box[1])
    for outline in mask.outlines:
        points = [(value - low[i % 2]) / sides[i % 2] * canvas.size[i % 2] for i, value in enumerate(outline)]
        ImageDraw.Draw(canvas).polygon(points, fill=255)
    return canvas if finer == 1 else canvas.resize((width, height), Image.Resampling.BOX)
