"""What Pillow does not check in a PNG: checksums of the pixels, how many chunks there are (PNG 1.2, 3.2)."""

import zlib
from dataclasses import dataclass
from typing import BinaryIO

from mmcli.media.limits import CHUNKS

_PIECE = 1 << 20  # bytes read at a time


@dataclass
class Chunks:
    """`bits` of a sample, whether the data of the pixels are as they were written, whether the end is there."""

    bits: int = 8
    sound: bool = True
    ended: bool = False
    too_many: bool = False


def chunks(file: BinaryIO) -> Chunks:
    """Go over the chunks of the PNG in `file`, which is left at its beginning."""
    found, number = Chunks(), 0
    size = file.seek(0, 2)
    at = 8
    while at + 8 <= size and not found.ended:
        file.seek(at)
        head = file.read(8)
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        number += 1
        if number > CHUNKS + size // 4096:
            found.too_many = True
            break
        if kind == b"IDAT":
            found.sound = found.sound and _sum_is_right(file, length)
        elif kind == b"IHDR":
            found.bits = (file.read(9) + b"\x08" * 9)[8]
        elif kind == b"IEND":
            found.ended = True
        at += 12 + length
    file.seek(0)
    return found


def _sum_is_right(file: BinaryIO, length: int) -> bool:
    value = zlib.crc32(b"IDAT")
    while length and (piece := file.read(min(length, _PIECE))):
        value, length = zlib.crc32(piece, value), length - len(piece)
    stated = file.read(4)
    return length > 0 or len(stated) < 4 or value == int.from_bytes(stated, "big")  # cut short: the decoder says so
