"""An image as the models want it: RGB, upright, on white, 8 bits; every quirk of files is dealt with here, once."""

import logging
import warnings
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from zlib import crc32

from PIL import Image

from mmcli.errors import InputError, raise_if_interrupted, ran_out_of_memory
from mmcli.media import jpeg, tiff
from mmcli.media.budget import Budget
from mmcli.media.colours import to_rgb
from mmcli.media.image_header import ImageHeader, contents, read_header
from mmcli.media.limits import (
    BYTES_PER_COEFFICIENT,
    BYTES_PER_PIXEL,
    BYTES_PER_ROW,
    DECODING,
    FULL_PIXELS,
    HELD_PIXELS,
    IMAGE_FILE,
    PIXELS,
    STREAM,
)
from mmcli.media.naming import empty, printable
from mmcli.media.sniff import describe, image_format
from mmcli.media.sources import Source

if TYPE_CHECKING:
    from PIL import TiffImagePlugin

_PLUGINS = {  # imported when a file of the kind turns up: Pillow's own search imports some forty
    "JPEG": ("JpegImagePlugin", "MpoImagePlugin"),
    "PNG": ("PngImagePlugin",),
    "GIF": ("GifImagePlugin",),
    "WEBP": ("WebPImagePlugin",),
    "TIFF": ("TiffImagePlugin",),
    "BMP": ("BmpImagePlugin",),
    "AVIF": ("AvifImagePlugin",),
    "JPEG2000": ("Jpeg2KImagePlugin",),
    "PPM": ("PpmImagePlugin",),
    "HEIF": (),
}

_TURNS = {  # EXIF orientation → what makes the image upright (EXIF 2.3, tag 0x0112)
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112
_READ_WHOLE = ("WEBP", "AVIF", "HEIF", "JPEG2000")  # by their decoders, from the file into memory

_KIND = {"MPO": "JPEG", "DIB": "BMP"}  # Pillow's name of what it opened → of the format

_decoding = Budget(DECODING)
_share: int | None = None  # bytes of them that are ours, where other processes have the rest


class TooLarge(InputError):
    """An image takes more to decode than the share of this process."""


def share_memory(processes: int) -> None:
    """This process is one of so many that decode: `load_image` raises TooLarge for what takes more than its share."""
    global _share
    _share = DECODING // processes


@dataclass(frozen=True)
class LoadedImage:
    """One upright image. `width` and `height` are its full size, also where `image` was decoded smaller."""

    image: Image.Image
    width: int
    height: int
    notes: tuple[str, ...] = ()
    """What the user should know, each a phrase: frames left out, values stretched."""


def load_image(source: Source, *, side: int | None = None, frame: int = 0) -> LoadedImage:
    """The image in `source`, of which `frame` is taken where there are several (counted from 0).

    `side` is what the caller will scale the image to, in pixels: it is then made smaller by 2, 4 or 8 as long as
    both sides stay at least that long (WHOLE: not at all), JPEGs while they are decoded, and further where it would
    still have more than HELD_PIXELS. Without it, images of more than FULL_PIXELS are refused. What all threads decode
    at one time takes DECODING bytes at most. Raises InputError for all that is wrong with the source or its content.
    """
    head = source.head()
    name = printable(source.name)
    if not head:
        raise empty(source.name)
    kind = image_format(head)
    if kind is None:
        what, do = describe(head)
        raise InputError(f"{name} is {what}", do)
    _prepare(kind, name)
    try:
        with source.open(IMAGE_FILE, STREAM) as file:
            return _decode(file, kind, name, side, frame)
    except InputError:
        raise
    except Exception as error:  # decoders meet damaged bytes with a dozen types of exception, OSError being only one
        raise_if_interrupted(error)
        if ran_out_of_memory(error):
            raise InputError(f"{name} does not fit into memory", "Make the picture smaller") from error
        raise _damaged(name, kind, error) from error


def _decode(file: BinaryIO, kind: str, name: str, side: int | None, frame: int) -> LoadedImage:
    header = read_header(file, kind, name)
    notes = list(header.notes)
    image = _open(file, kind)
    _check_size(image, name, side)
    _choose_frame(image, header, frame, name, notes)
    _check_size(image, name, side)
    full = image.size  # before draft mode changes it
    _draft(image, side)
    with _decoding.spend(_cost(image, header, file, full, name)):
        if header.layout is not None:
            image = _checked_jpeg(image, file, header.layout, side, name, notes)
        orientation, upright = _upright(image, file, header, full, side, notes)
        del image  # before others may decode
    width, height = full if orientation < 5 else full[::-1]
    return LoadedImage(upright, width, height, tuple(notes))


def _upright(
    image: Image.Image, file: BinaryIO, header: ImageHeader, full: tuple[int, int], side: int | None, notes: list[str]
) -> tuple[int, Image.Image]:
    """Decode an opened image → its orientation in the file, and the image as it is to be seen."""
    image.load()
    if header.first_frame is not None and image.tell() == 0 and header.first_frame != (0, 0, *image.size):
        whole = Image.new("RGBA", image.size)  # around it there is nothing, which Pillow fills with a colour
        whole.paste(image.crop(header.first_frame).convert("RGBA"), header.first_frame)
        image = whole
    low = _lower_bytes(file) if _deep_transparency(image, header) else None
    if image.mode == "L" and header.bits < 8 and "transparency" in image.info:  # reported as it is in the file
        image.info["transparency"] *= 255 // (2**header.bits - 1)
    orientation = _orientation(image)
    upright = to_rgb(image, _factor(image.size, full, side), notes, low)
    if upright is not image:
        image.close()  # its pixels go before a third whole is made in turning
    if orientation in _TURNS:
        upright = upright.transpose(_TURNS[orientation])
    upright.info.clear()  # no profile or EXIF of the file may end up in what is drawn on it
    return orientation, upright


def _open(file: BinaryIO, kind: str) -> Image.Image:
    file.seek(0)
    return Image.open(file, formats=(kind,))


def _draft(image: Image.Image, side: int | None) -> None:
    """Let a JPEG be decoded at a half, a quarter or an eighth, which is quicker than making it smaller afterwards."""
    factor = _factor(image.size, image.size, side)
    if factor > 1 and image.format in ("JPEG", "MPO"):
        image.draft(None, (image.width // factor, image.height // factor))


def _factor(size: tuple[int, int], full: tuple[int, int], side: int | None) -> int:
    """By what to divide the sides of an image of `size`, which were `full` in the file."""
    if side is None:
        return 1
    factor, drafted = 1, max(full[0] // size[0], 1)
    while min(size) // (2 * factor) >= side and drafted * factor < 8:
        factor *= 2
    while size[0] * size[1] // factor**2 > HELD_PIXELS:
        factor *= 2
    return factor


def _kind(image: Image.Image) -> str:
    return _KIND.get(image.format or "", image.format or "")


def _cost(image: Image.Image, header: ImageHeader, file: BinaryIO, full: tuple[int, int], name: str) -> int:
    """The bytes that decoding takes at its greatest. InputError where those are more than there may be."""
    pixels = image.size[0] * image.size[1]  # as they will be decoded
    cost = pixels * BYTES_PER_PIXEL[_kind(image)] + image.size[1] * BYTES_PER_ROW
    if header.layout is not None and header.layout.several_scans:
        cost += header.layout.coefficients * BYTES_PER_COEFFICIENT
    if _deep_transparency(image, header):
        cost *= 2
    if image.format in _READ_WHOLE:
        cost += file.seek(0, 2)
    if cost > DECODING:
        what = f"{name} has {full[0]} × {full[1]} pixels, which would take {cost / 1e9:.1f} GB to decode"
        raise InputError(what, "Make the picture smaller or cut it up")
    if _share is not None and cost > _share:
        raise TooLarge(f"{name} takes too much memory to decode")
    return cost


# -- JPEGs that are not whole ------------------------------------------------------------------------------------


def _checked_jpeg(
    image: Image.Image, file: BinaryIO, layout: jpeg.Layout, side: int | None, name: str, notes: list[str]
) -> Image.Image:
    """The JPEG to load: `image`, or with the end marker that it lacks. InputError where data of its pixels are missing.

    libjpeg fills what is missing with grey without an error.
    """
    if layout.ended:
        image.load()
        if not _ends_grey(image):
            return image
    with contents(file) as data:
        whole = jpeg.with_end(data, layout)
        filled = jpeg.with_end(data, layout, filled=True)
    del image
    if not layout.complete or _checksum(whole, side) != _checksum(filled, side):
        what = f"{name} is damaged or cut short (JPEG: data of the picture are missing)"
        raise InputError(what, "Get a fresh copy of the file")
    if not layout.ended:
        notes.append("its end marker is missing, but all of the picture is there")
    image = _open(BytesIO(whole), "JPEG")
    _draft(image, side)
    return image


def _ends_grey(image: Image.Image) -> bool:
    """Whether the last pixels are of the grey that stands for missing data."""
    width, height = image.size
    corner = image.crop((max(width - 4, 0), height - 1, width, height))
    return all(low >= 126 and high <= 129 for low, high in _extrema(corner))


def _extrema(image: Image.Image) -> list[tuple[float, float]]:
    return [cast(tuple[float, float], band.getextrema()) for band in image.split()]


def _checksum(data: bytes, side: int | None) -> int:
    image = _open(BytesIO(data), "JPEG")
    _draft(image, side)
    value = 0
    for top in range(0, image.height, 256):
        value = crc32(image.crop((0, top, image.width, min(top + 256, image.height))).tobytes(), value)
    return value


def _deep_transparency(image: Image.Image, header: ImageHeader) -> bool:
    """Whether one colour of a 16-bit RGB PNG is transparent."""
    return header.bits == 16 and image.mode == "RGB" and "transparency" in image.info


def _lower_bytes(file: BinaryIO) -> Image.Image:
    """The lower bytes of a 16-bit RGB PNG, of which Pillow gives the upper: its rows read in the other byte order."""
    image: Any = _open(file, "PNG")  # its tiles are not in Pillow's types
    image.tile = [tile._replace(args="RGB;16L") for tile in image.tile]
    image.load()
    return image


# -- opening -----------------------------------------------------------------------------------------------------


def _prepare(kind: str, name: str) -> None:
    """What decoding `kind` needs."""
    _quieten()
    if kind == "HEIF":
        try:
            _register_heif()
        except ImportError as error:
            do = "Install what it takes with: pip install 'mmcli[heic]'"
            raise InputError(f"{name} is a HEIC picture, which needs pillow-heif", do) from error
    elif kind == "AVIF":
        from PIL import features

        if not features.check("avif"):
            do = "Install a Pillow of 11.3 or later, or turn the picture into a PNG"
            raise InputError(f"{name} is an AVIF picture, which this build of Pillow cannot read", do)
    for plugin in _PLUGINS[kind]:
        import_module(f"PIL.{plugin}")
    if kind == "TIFF":
        tiff.use_libtiff()


@cache
def _quieten() -> None:
    """Pillow's warnings, its limit on pixels and its blocks of memory, once: they are global."""
    warnings.filterwarnings("ignore", module=r"PIL(\.|$)")
    logging.getLogger("PIL").addHandler(logging.NullHandler())  # else its errors reach stderr
    Image.core.set_block_size(64 << 20)  # blocks of up to 32 MiB glibc may keep for the thread when they are freed
    Image.MAX_IMAGE_PIXELS = None  # it refuses images of 180 megapixels; `_check_size` and `_cost` stand in for it


@cache
def _register_heif() -> None:
    import pillow_heif

    pillow_heif.register_heif_opener()


def _check_size(image: Image.Image, name: str, side: int | None) -> None:
    """Before any pixel is decoded: a few bytes of file can announce gigabytes."""
    width, height = image.size
    limit, use = (FULL_PIXELS, "drawn on") if side is None else (PIXELS, "read")
    if width * height > limit:
        what = f"{name} has {width} × {height} pixels, more than the {limit // 10**6} million that are {use}"
        raise InputError(what, "Make the picture smaller or cut it up")
    if not width or not height:
        raise InputError(f"{name} has no pixels ({width} × {height})", "Get a fresh copy of the file")


def _choose_frame(image: Image.Image, header: ImageHeader, frame: int, name: str, notes: list[str]) -> None:
    count: int = header.frames or getattr(image, "n_frames", None) or 1
    if not 0 <= frame < count:
        has = "only frame 0" if count == 1 else f"{count} frames, 0 to {count - 1}"
        raise InputError(f"{name} has no frame {frame}: it has {has}", "Choose another frame")
    place = header.pages[frame] if header.pages else frame
    if place:  # not for 0: a HEIC opens at its main image, which may be any of them
        image.seek(place)
    of = f"more than {count:,}" if header.more else str(count)
    if frame:
        notes.append(f"frame {frame} of {of} is used (counted from 0)")
    elif count > 1 and image.format != "MPO":  # what follows the first in an MPO is its preview or depth map
        notes.append(f"the first of {of} frames is used")
    if image.format == "TIFF":
        tiff.mend(cast("TiffImagePlugin.TiffImageFile", image))


def _orientation(image: Image.Image) -> int:
    """1 to 8; 1 where EXIF says nothing sensible. For TIFF and HEIC the decoder has turned the image: 1."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception as error:  # EXIF is written by all sorts of programs; a broken block takes nothing from the pixels
        raise_if_interrupted(error)
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _damaged(name: str, kind: str, error: Exception) -> InputError:
    kind = {"HEIF": "HEIC", "WEBP": "WebP", "JPEG2000": "JPEG 2000"}.get(kind, kind)
    do = "Get a fresh copy of the file, or save it again as PNG"
    if isinstance(error, Image.UnidentifiedImageError):  # says no more than that
        return InputError(f"{name} begins like {kind} but is damaged, cut short or of a rare variety", do)
    reason = printable(str(error).split("\n")[0][:200]) or type(error).__name__
    return InputError(f"{name} is damaged or cut short ({kind}: {reason})", do)
