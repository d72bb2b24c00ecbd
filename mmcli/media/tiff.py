"""Which page of a TIFF is the image, and what stands in the way of reading it (TIFF 6.0, TIFF/EP, DNG 1.4)."""

import contextlib
import ctypes
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from PIL import Image, ImagePalette

from mmcli.media.limits import FRAMES, PAGES

if TYPE_CHECKING:
    from PIL import TiffImagePlugin

_SUBFILE, _OLD_SUBFILE, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 255, 258, 259, 262
_SAMPLES, _PLANAR, _SUB_IFDS, _EXTRA, _FORMAT, _DNG = 277, 284, 330, 338, 339, 50706
_WANTED = {
    _SUBFILE,
    _OLD_SUBFILE,
    _BITS,
    _COMPRESSION,
    _PHOTOMETRIC,
    _SAMPLES,
    _PLANAR,
    _SUB_IFDS,
    _EXTRA,
    _FORMAT,
    _DNG,
}
_CODES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}  # the types that these tags have
_VALUES = 64  # of one tag, at most
_SENSOR = (32803, 34892)  # photometric interpretations: colour filter array, linear raw
_RAW_CODECS = (32767, 32769, 32770, 34713, 65000, 65535)  # Sony, Epson, Samsung, Nikon, Kodak, Pentax
_COLOURS, _OTHER_LAB = (2, 5, 6, 8), {9: "ICC Lab", 10: "ITU Lab"}  # photometric interpretations
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType

Tags = dict[int, tuple[int, ...]]


@dataclass(frozen=True)
class Pages:
    """`first` is the page to show, counted from 0 over all; `count` pages are whole images, or that and `more`."""

    whole: tuple[int, ...] = (0,)  # the pages that are no reduced copies or masks, counted from 0 over all
    more: bool = False  # than were looked at
    raw: bool = False  # a camera's file, of which only previews could be read
    only_reduced: bool = False
    problem: str | None = None  # a layout that would be read wrongly


def pages(file: BinaryIO) -> Pages:
    """Look over the pages of the TIFF in `file`, which is left at its beginning. Broken ones are for the decoder."""
    head = file.read(16)
    found: list[Tags] = []
    whole: list[int] = []
    try:
        if head[8:10] == b"CR" and head[:4] == b"II*\0":  # Canon's CR2
            return Pages(raw=True)
        for number, tags in enumerate(_chain(file, head)):
            found.append(tags)
            if number >= FRAMES:
                break
            if number < PAGES and (_is_raw(tags) or any(_is_raw(below) for below in _below(file, head, tags))):
                return Pages(raw=True)
            if not _is_part(tags):
                whole.append(number)
    finally:
        file.seek(0)
    if not found:
        return Pages()
    if not whole:
        alone = len(found) == 1 and _SUB_IFDS not in found[0]  # mistaken about itself: there is nothing else to show
        return Pages(only_reduced=not alone, problem=_problem(found[0]))
    problem = _problem(found[whole[0]])
    return Pages(tuple(whole), len(found) > FRAMES, problem=problem)


def _is_raw(tags: Tags) -> bool:
    sensor = tags.get(_PHOTOMETRIC, (0,))[0] in _SENSOR
    return sensor or _DNG in tags or tags.get(_COMPRESSION, (1,))[0] in _RAW_CODECS


def _is_part(tags: Tags) -> bool:
    """A reduced copy of another page, or its mask."""
    return bool(tags.get(_SUBFILE, (0,))[0] & (_REDUCED | _MASK)) or tags.get(_OLD_SUBFILE, (1,))[0] == 2


def _problem(tags: Tags) -> str | None:
    """What Pillow would take for something else, or not know."""
    from PIL.TiffImagePlugin import COMPRESSION_INFO

    bits, kinds, photometric = tags.get(_BITS, (1,)), tags.get(_FORMAT, (1,)), tags.get(_PHOTOMETRIC, (0,))[0]
    if tags.get(_COMPRESSION, (1,))[0] not in COMPRESSION_INFO:
        return f"compression {tags[_COMPRESSION][0]}"
    if photometric in _OTHER_LAB:
        return f"{_OTHER_LAB[photometric]} colours"
    if photometric in _COLOURS and (kinds[0] == 3 or bits[0] > 16):
        return f"colours of {bits[0]} bits a sample"
    if photometric in (0, 1) and tags.get(_EXTRA) and bits[0] > 8:
        return f"grey and transparency of {bits[0]} bits a sample"
    if bits[0] > 32:
        return f"{bits[0]} bits a sample"
    if len(set(kinds)) > 1 or len(set(bits)) > 1:
        return "samples of several types"
    if kinds[0] == 2 and bits[0] <= 8:
        return "signed 8-bit samples"
    if tags.get(_PLANAR, (1,))[0] == 2 and photometric in (0, 1, 3) and tags.get(_EXTRA):
        return "grey and transparency in separate planes"
    return None


# -- what Pillow needs help with --------------------------------------------------------------------------------

_NATIVE = {  # libtiff gives samples in the machine's byte order where Pillow expects the file's
    "I;16S": "I;16NS", "I;16BS": "I;16NS", "I;32S": "I;32NS", "I;32BS": "I;32NS", "F;32F": "F;32NF", "F;32BF": "F;32NF"
}  # fmt: skip
_COLOUR_MAP = 320


def use_libtiff() -> None:
    """Let libtiff read uncompressed files too (Pillow mixes up their planes), and say nothing on stderr meanwhile."""
    from PIL import TiffImagePlugin

    TiffImagePlugin.READ_LIBTIFF = True
    with contextlib.suppress(OSError, AttributeError):  # linked in another way: it goes on talking
        library = ctypes.CDLL(Image.core.__file__)  # libtiff is found through what is linked with it
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            getattr(library, name)(None)


def mend(image: "TiffImagePlugin.TiffImageFile") -> None:
    """Correct what Pillow makes of an opened page before it is loaded."""
    for number, tile in enumerate(image.tile):
        if tile[0] == "libtiff" and isinstance(tile[3], tuple) and tile[3][0] in _NATIVE:
            image.tile[number] = tile._replace(args=(_NATIVE[tile[3][0]], *tile[3][1:]))
    colours = image.tag_v2.get(_COLOUR_MAP) if image.mode in ("P", "PA") else None
    if colours and max(colours) < 256:  # written as bytes, against the specification
        image.palette = ImagePalette.raw("RGB;L", bytes(colours))


# -- directories -------------------------------------------------------------------------------------------------


def _chain(file: BinaryIO, head: bytes) -> Iterator[Tags]:
    order, big = _shape(head)
    at = struct.unpack_from(f"{order}Q", head, 8)[0] if big else struct.unpack_from(f"{order}I", head, 4)[0]
    seen = set()
    while at and at not in seen:
        seen.add(at)
        read = _directory(file, at, order, big)
        if read is None:
            return
        tags, at = read
        yield tags


def _below(file: BinaryIO, head: bytes, tags: Tags) -> Iterator[Tags]:
    order, big = _shape(head)
    for at in tags.get(_SUB_IFDS, ()):
        read = _directory(file, at, order, big)
        if read is not None:
            yield read[0]


def _shape(head: bytes) -> tuple[str, bool]:
    order = "<" if head[:2] == b"II" else ">"
    return order, len(head) == 16 and struct.unpack_from(f"{order}H", head, 2)[0] == 43


def _directory(file: BinaryIO, at: int, order: str, big: bool) -> tuple[Tags, int] | None:
    """The wanted tags of the directory at an offset, and the offset of the next; None where the file ends before."""
    counts, row, offset = ("Q", f"{order}HHQ8s", "Q") if big else ("H", f"{order}HHI4s", "I")
    try:
        file.seek(at)
        count = struct.unpack(f"{order}{counts}", file.read(struct.calcsize(f"={counts}")))[0]
        size = struct.calcsize(row.replace(order, "="))
        table = file.read(min(count, 65535) * size)
        following = struct.unpack(f"{order}{offset}", file.read(struct.calcsize(f"={offset}")))[0]
    except (struct.error, OSError, OverflowError, ValueError):
        return None
    tags: Tags = {}
    for tag, kind, number, value in struct.iter_unpack(f"{order}{row[1:]}", table[: len(table) // size * size]):
        if tag in _WANTED and kind in _CODES and number:
            tags[tag] = _values(file, order, _CODES[kind], min(number, _VALUES), value, offset)
    return {tag: values for tag, values in tags.items() if values}, following


def _values(file: BinaryIO, order: str, code: str, number: int, value: bytes, offset: str) -> tuple[int, ...]:
    size = struct.calcsize(f"={number}{code}")
    if size > len(value):
        try:
            file.seek(struct.unpack(f"{order}{offset}", value)[0])
            value = file.read(size)
        except (OSError, OverflowError, ValueError):
            return ()
    return struct.unpack_from(f"{order}{number}{code}", value) if len(value) >= size else ()
