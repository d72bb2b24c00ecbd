"""A look at an image file before its decoder sees it: what would be read wrongly, or would take the machine."""

import mmap
from dataclasses import dataclass
from typing import BinaryIO

from mmcli.errors import InputError
from mmcli.media import gif, jpeg, png, tiff
from mmcli.media.limits import FRAMES, SCANNED, SCANS
from mmcli.media.sniff import DEVELOP, RAW

_AGAIN = "Get a fresh copy of the file"


@dataclass
class ImageHeader:
    """What was seen. `frames` is None where the decoder counts them at once."""

    frames: int | None = None
    more: bool = False  # frames than were counted
    pages: tuple[int, ...] = ()  # of a TIFF, those that are whole images
    first_frame: tuple[int, int, int, int] | None = None  # of a GIF, where it is in the image
    bits: int = 8  # of a sample of a PNG
    layout: jpeg.Layout | None = None  # of a JPEG
    notes: tuple[str, ...] = ()


def read_header(file: BinaryIO, kind: str, name: str) -> ImageHeader:
    """Raises InputError for what cannot be read rightly or in bounded time; the file is left at its beginning."""
    readers = {"JPEG": _jpeg, "PNG": _png, "TIFF": _tiff, "GIF": _gif}
    return readers[kind](file, name) if kind in readers else ImageHeader()


def _gif(file: BinaryIO, name: str) -> ImageHeader:
    count, first = gif.frames(file)
    return ImageHeader(frames=min(count, FRAMES) or 1, more=count > FRAMES, first_frame=first)


def _png(file: BinaryIO, name: str) -> ImageHeader:
    found = png.chunks(file)
    if found.too_many:
        raise InputError(f"{name} is a PNG of far too many pieces", "Save it again with another program")
    if not found.sound:
        raise InputError(f"{name} is damaged (PNG: its checksums do not fit its data)", _AGAIN)
    notes = () if found.ended else ("its end is missing, but all of the picture is there",)
    return ImageHeader(bits=found.bits, notes=notes)


def _tiff(file: BinaryIO, name: str) -> ImageHeader:
    found = tiff.pages(file)
    if found.raw:
        raise InputError(f"{name} is {RAW}", DEVELOP)
    if found.only_reduced:
        what = f"{name} is a TIFF whose pages are all marked as reduced copies of a picture that is not among them"
        raise InputError(what, "Save the picture itself as PNG or TIFF")
    if found.problem:
        raise InputError(f"{name} is a TIFF with {found.problem}, which is not read here", "Turn it into a PNG first")
    first = found.whole[0]
    notes = () if not first else (f"page {first} is used (counted from 0): those before it are reduced copies",)
    return ImageHeader(frames=len(found.whole), more=found.more, pages=found.whole, notes=notes)


def _jpeg(file: BinaryIO, name: str) -> ImageHeader:
    with contents(file) as data:
        found = jpeg.layout(data)
    if found is None:
        raise InputError(f"{name} begins like JPEG but is damaged or cut short before its picture", _AGAIN)
    if found.unreadable:
        raise InputError(f"{name} is {found.unreadable}, which is not read here", "Turn it into a PNG first")
    scanned = found.scans * found.coefficients
    if found.scans > SCANS or (found.several_scans and scanned > SCANNED):
        what = f"{name} is a JPEG of {'over ' if found.scans > SCANS else ''}{min(found.scans, SCANS)} scans"
        do = "Save it again as a baseline (not progressive) JPEG"
        raise InputError(f"{what}, too many for its size to be read here", do)
    return ImageHeader(layout=found)


class contents:
    """The bytes of a file as a buffer, mapped where it lies on the disk; the file is left at its beginning."""

    def __init__(self, file: BinaryIO):
        self._file = file

    def __enter__(self):
        self._file.seek(0)
        if hasattr(self._file, "getvalue"):
            self._data = self._file.getvalue()
        else:
            self._data = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._data

    def __exit__(self, *_) -> None:
        if isinstance(self._data, mmap.mmap):
            self._data.close()
