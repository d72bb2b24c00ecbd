"""How many frames a GIF has, from its blocks: decoding them all to count them takes minutes (GIF89a)."""

from struct import unpack
from typing import BinaryIO

from mmcli.media.limits import FRAMES

_IMAGE, _EXTENSION = 0x2C, 0x21


def frames(file: BinaryIO) -> tuple[int, tuple[int, int, int, int]]:
    """The number of frames of the GIF in `file`, at most FRAMES + 1, and where in the image the first of them is.

    The file is left at its beginning.
    """
    file.seek(10)
    _skip_table(file, file.read(3)[:1])
    count, first = 0, (0, 0, 0, 0)
    while count <= FRAMES and (kind := file.read(1)):
        if kind[0] == _IMAGE:
            place = file.read(9)
            _skip_table(file, place[8:])
            if count == 0 and len(place) == 9:
                left, top, width, height = unpack("<4H", place[:8])
                first = (left, top, left + width, top + height)
            file.seek(1, 1)  # the size of the first codes
            count += 1
        elif kind[0] == _EXTENSION:
            file.seek(1, 1)
        else:  # the end, or damage
            break
        while (length := file.read(1)) not in (b"", b"\0"):
            file.seek(length[0], 1)
    file.seek(0)
    return count, first


def _skip_table(file: BinaryIO, flags: bytes) -> None:
    if flags and flags[0] & 0x80:
        file.seek(3 << (flags[0] & 7) + 1, 1)
