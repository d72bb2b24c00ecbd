"""An image as tiles: it is laid on the canvas of up to four tiles that suits it best.

Source: transformers `models/mllama/image_processing_pil_mllama.py`.
"""

from functools import lru_cache

import numpy as np
from PIL import Image


@lru_cache(maxsize=16)
def arrangements(most: int) -> tuple[tuple[int, int], ...]:
    """All (rows, columns) of at most so many tiles, in the order by which checkpoints number them from 1 on."""
    sides = range(1, most + 1)
    return tuple((rows, columns) for rows in sides for columns in sides if rows * columns <= most)


def choose(height: int, width: int, side: int, most: int) -> tuple[int, int]:
    """The (rows, columns) of tiles for an image of `height` × `width` pixels.

    Of those into which it fits, the one that enlarges it least; else the one that shrinks it least; of equals the
    smallest.
    """
    scales = {
        (rows, columns): min(rows * side / height, columns * side / width) for rows, columns in arrangements(most)
    }
    fitting = [scale for scale in scales.values() if scale >= 1]
    scale = min(fitting) if fitting else max(scales.values())
    return min((one for one, own in scales.items() if own == scale), key=lambda one: one[0] * one[1])


def fitted(height: int, width: int, rows: int, columns: int, side: int) -> tuple[int, int]:
    """The (height, width) to which an image is resized on a canvas of such tiles.

    It keeps its aspect. It is shrunk to fit the canvas; one that is smaller than a tile grows until one of its sides
    is a tile's.
    """
    most = rows * side, columns * side
    target = min(max(height, side), most[0]), min(max(width, side), most[1])
    down, across = target[0] / height, target[1] / width
    if across < down:
        return min(int(height * across) or 1, target[0]), target[1]
    return target[0], min(int(width * down) or 1, target[1])


def laid_out(image: Image.Image, side: int, most: int, resample: Image.Resampling) -> tuple[Image.Image, int, int]:
    """RGB image → its canvas, black where the image leaves it bare, and the (rows, columns) of tiles of that."""
    rows, columns = choose(image.height, image.width, side, most)
    height, width = fitted(image.height, image.width, rows, columns, side)
    canvas = Image.new("RGB", (columns * side, rows * side))
    canvas.paste(image.resize((width, height), resample))
    return canvas, rows, columns


def cut(pixels: np.ndarray, rows: int, columns: int, most: int) -> np.ndarray:
    """A canvas [3, height, width] → its tiles row by row, and zeros for those that it lacks: [most, 3, side, side]."""
    channels, height, width = pixels.shape
    tiles = pixels.reshape(channels, rows, height // rows, columns, width // columns).transpose(1, 3, 0, 2, 4)
    whole = np.zeros((most, channels, height // rows, width // columns), pixels.dtype)
    whole[: rows * columns] = tiles.reshape(-1, *whole.shape[1:])
    return whole
