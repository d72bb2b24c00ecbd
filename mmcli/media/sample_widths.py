"""Samples that are narrower than the place they are stored in, such as 24 bits in 32.

They stand at the upper end of their place (Microsoft, WAVEFORMATEXTENSIBLE; Apple, Core Audio Format), so they are
right as samples of the whole place. FFmpeg goes by their own width instead, and takes noise for audio. So it is shown a
header that tells the width of the place.
"""

from collections.abc import Iterator
from typing import BinaryIO, Literal

PLAIN, FLOAT, EXTENSIBLE = 0x0001, 0x0003, 0xFFFE  # tags of a WAV's format
LOOK = 4096  # samples that are looked at where the header could mean two things
READ = 1 << 20  # bytes given at a time: a header may have FFmpeg ask for gigabytes, which would be held twice
CHUNKS = 100  # more stand before the format in no file
W64_TAIL = 12  # bytes of a chunk's name behind its four letters in W64


ByteOrder = Literal["little", "big"]


class Patched:
    """A file of which some bytes read differently; nothing but what FFmpeg needs, and no name to guess from."""

    def __init__(self, file: BinaryIO, patches: dict[int, bytes]):
        self._file, self._patches = file, patches
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        at = self._file.tell() if self._patches else 0
        data = self._file.read(min(size, READ) if size >= 0 else size)
        for place, new in self._patches.items():
            first, last = max(place, at), min(place + len(new), at + len(data))
            if first < last:
                data = data[: first - at] + new[first - place : last - place] + data[last - at :]
        return data


def whole_places(file: BinaryIO) -> Patched:
    """The file as FFmpeg is to read it."""
    place = file.tell()
    try:
        return Patched(file, _patches(file))
    finally:
        file.seek(place)


def _patches(file: BinaryIO) -> dict[int, bytes]:
    head = file.read(40)
    if head.startswith((b"RIFF", b"RF64")) and head[8:12] == b"WAVE":
        return _patch_wav(file, dict(_chunks(file, 12, "little", 4)))
    if head.startswith(b"riff") and head[24:28] == b"wave":
        return _patch_wav(file, dict(_chunks(file, 40, "little", 8)))
    if head.startswith(b"caff"):
        return _patch_caf(file, dict(_chunks(file, 8, "big", 8)))
    return {}


def _chunks(file: BinaryIO, at: int, order: ByteOrder, size_bytes: int) -> Iterator[tuple[bytes, int]]:
    """The names of chunks and where their content begins, up to the samples."""
    wide = order == "little" and size_bytes == 8  # W64: names of 16 bytes, sizes that count the header, steps of 8
    tail = W64_TAIL if wide else 0
    for _ in range(CHUNKS):
        file.seek(at)
        head = file.read(4 + tail + size_bytes)
        if len(head) < 4 + tail + size_bytes:
            return
        content = at + len(head)
        yield head[:4], content
        size = int.from_bytes(head[-size_bytes:], order)
        if head[:4] == b"data" or size >= 1 << 62:
            return
        at = at + max(size + -size % 8, 24) if wide else content + size + (size % 2 if order == "little" else 0)


def _patch_wav(file: BinaryIO, chunks: dict[bytes, int]) -> dict[int, bytes]:
    """The width that counts is the number of valid bits where a WAV has one, else that of all bits."""
    begin = chunks.get(b"fmt ")
    if begin is None:
        return {}
    file.seek(begin)
    head = file.read(26)
    tag, channels, align, bits, valid = (int.from_bytes(head[at : at + 2], "little") for at in (0, 2, 12, 14, 18))
    place = _width_of_place(align, channels)
    if len(head) < 26 or place is None:
        return {}
    if tag == EXTENSIBLE and int.from_bytes(head[24:26], "little") in (PLAIN, FLOAT) and 0 < valid < place:
        return {begin + 18: place.to_bytes(2, "little")}
    if tag == PLAIN and 0 < bits <= place - 8 and _ends_in_zeros(file, chunks.get(b"data"), place // 8):
        return {begin + 14: place.to_bytes(2, "little")}
    return {}


def _patch_caf(file: BinaryIO, chunks: dict[bytes, int]) -> dict[int, bytes]:
    begin = chunks.get(b"desc")
    if begin is None:
        return {}
    file.seek(begin)
    head = file.read(32)
    align, channels, bits = (int.from_bytes(head[at : at + 4], "big") for at in (16, 24, 28))
    place = _width_of_place(align, channels)
    if len(head) == 32 and head[8:12] == b"lpcm" and place is not None and 0 < bits <= place - 8:
        return {begin + 28: place.to_bytes(4, "big")}
    return {}


def _width_of_place(align: int, channels: int) -> int | None:
    """Bits of the place of one sample, None for what samples are not stored in."""
    width = 8 * align // channels if channels and align % channels == 0 else 0
    return width if width in (8, 16, 24, 32, 64) else None


def _ends_in_zeros(file: BinaryIO, begin: int | None, size: int) -> bool:
    """Whether the lowest byte of every sample is zero: Cool Edit writes floats under the same header."""
    if begin is None:
        return False
    file.seek(begin)
    data = file.read(LOOK * size)
    return any(data) and not any(data[::size])
