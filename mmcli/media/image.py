"""A picture as the models want it: RGB, upright, on white, 8 bits; every quirk of files is dealt with here, once."""

import logging
import warnings
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from io import BytesIO

from PIL import Image, ImageChops

from mmcli.errors import InputError
from mmcli.media.sniff import describe, picture_format
from mmcli.media.sources import Source, printable

PIXEL_LIMIT = 250_000_000  # about 1.5 GB while converting; the largest phone cameras make 200 megapixels
FILE_LIMIT = 2 << 30  # bytes

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

_TURNS = {  # EXIF orientation → what makes the picture upright (EXIF 2.3, tag 0x0112)
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # TIFF 6.0 tags


@dataclass(frozen=True)
class Picture:
    """One upright picture. `width` and `height` are its full size, also where `image` was decoded smaller."""

    image: Image.Image
    width: int
    height: int
    notes: tuple[str, ...] = ()
    """What the user should know, each a phrase: frames left out, values stretched."""


def load_picture(source: Source, *, side: int | None = None, frame: int = 0) -> Picture:
    """The picture in `source`, of which `frame` is taken where there are several (counted from 0).

    `side` is what the caller will scale the picture to, in pixels: JPEGs are then decoded at 1/2, 1/4 or 1/8 as long
    as both sides stay at least that long. Raises InputError for all that is wrong with the source or its content.
    """
    data = source.read(limit=FILE_LIMIT)
    name = printable(source.name)
    if not data:
        raise InputError(f"{name} is empty", "Get the file again from where it came")
    kind = picture_format(data)
    if kind is None:
        what, do = describe(data)
        raise InputError(f"{name} is {what}", do)
    _prepare(kind, name)
    try:
        return _decode(data, kind, name, side, frame)
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(f"{name} does not fit into memory", "Make the picture smaller") from error
    except Exception as error:  # decoders meet damaged bytes with a dozen types of exception, OSError being only one
        raise _damaged(name, kind, error) from error


def _decode(data: bytes, kind: str, name: str, side: int | None, frame: int) -> Picture:
    notes: list[str] = []
    with Image.open(BytesIO(data), formats=(kind,)) as image:
        _check_size(image, name)
        _choose_frame(image, frame, name, notes)
        _check_size(image, name)
        width, height = image.size  # before draft mode changes it
        if side is not None and image.format in ("JPEG", "MPO"):
            image.draft(None, (side, side))
        image.load()
        orientation = _orientation(image)
        upright = _to_rgb(image, notes)
    if orientation in _TURNS:
        upright = upright.transpose(_TURNS[orientation])
    if orientation >= 5:
        width, height = height, width
    upright.info.clear()  # no profile or EXIF of the file may end up in what is drawn on it
    return Picture(upright, width, height, tuple(notes))


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


@cache
def _quieten() -> None:
    """Pillow's warnings and its limit on pixels, once: both are global, and undoing them is not safe in threads."""
    warnings.filterwarnings("ignore", module=r"PIL(\.|$)")
    logging.getLogger("PIL").addHandler(logging.NullHandler())  # else its errors reach stderr
    Image.MAX_IMAGE_PIXELS = None  # it refuses pictures of 180 megapixels; `_check_size` stands in for it


@cache
def _register_heif() -> None:
    import pillow_heif

    pillow_heif.register_heif_opener()


def _check_size(image: Image.Image, name: str) -> None:
    """Before any pixel is decoded: a few bytes of file can announce gigabytes."""
    width, height = image.size
    if width * height > PIXEL_LIMIT:
        what = f"{name} has {width} × {height} pixels, more than the {PIXEL_LIMIT // 10**6} million that are read"
        raise InputError(what, "Make the picture smaller or cut it up")
    if not width or not height:
        raise InputError(f"{name} has no pixels ({width} × {height})", "Get the file again from where it came")


def _choose_frame(image: Image.Image, frame: int, name: str, notes: list[str]) -> None:
    count = getattr(image, "n_frames", 1)
    if not 0 <= frame < count:
        has = "only frame 0" if count == 1 else f"{count} frames, 0 to {count - 1}"
        raise InputError(f"{name} has no frame {frame}: it has {has}", "Choose another --frame")
    if frame:  # not for 0: a HEIC opens at its main picture, which may be any of them
        image.seek(frame)
        notes.append(f"frame {frame} of {count} is used (counted from 0)")
    elif count > 1 and image.format != "MPO":  # what follows the first in an MPO is its preview or depth map
        notes.append(f"the first of {count} frames is used")


def _orientation(image: Image.Image) -> int:
    """1 to 8; 1 where EXIF says nothing sensible. For TIFF and HEIC the decoder has turned the picture: 1."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # EXIF is written by all sorts of programs; a broken block takes nothing from the pixels
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


# -- to 8-bit RGB ------------------------------------------------------------------------------------------------


def _to_rgb(image: Image.Image, notes: list[str]) -> Image.Image:
    """A new RGB picture in sRGB, what is transparent in it on white."""
    profile = image.info.get("icc_profile")
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _deep_grey(image, notes).convert("RGB")
    if image.mode == "CMYK" and image.format in ("JPEG", "MPO") and "adobe" not in image.info:
        # Adobe writes CMYK JPEGs inverted and marks them; Pillow turns every one over, the unmarked too.
        image = ImageChops.invert(image)
    if not image.has_transparency_data:
        return _to_srgb(image, profile, notes)
    clear = image.convert("RGBA")  # also palettes and single see-through colours
    colours = clear.convert("L" if image.mode in ("1", "L", "LA", "La") else "RGB")
    result = Image.new("RGB", image.size, "white")
    result.paste(_to_srgb(colours, profile, notes), mask=clear.getchannel("A"))
    return result


def _to_srgb(image: Image.Image, profile: bytes | None, notes: list[str]) -> Image.Image:
    """`image` as RGB, through its colour profile where that says anything but sRGB. Always a new picture."""
    if not profile and image.mode != "LAB":
        return image.convert("RGB")
    from PIL import ImageCms

    if image.mode in ("P", "RGBX"):
        image = image.convert("RGB")
    try:
        origin = ImageCms.ImageCmsProfile(BytesIO(profile)) if profile else ImageCms.createProfile("LAB")
        space = (origin.profile.xcolor_space if profile else "LAB").strip()
        description = (origin.profile.profile_description or "") if profile else ""
        if {"GRAY": "L", "Lab": "LAB"}.get(space, space) == image.mode and not description.startswith("sRGB"):
            return ImageCms.profileToProfile(image, origin, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        notes.append("its colour profile cannot be used, the colours are taken for sRGB")
    return image.convert("RGB")


def _deep_grey(image: Image.Image, notes: list[str]) -> Image.Image:
    """Greys of more than 8 bits as L, where Pillow's own conversion would clip all above 255 to white.

    16-bit integers are scaled by the full range of their type (of their 12 bits, where a TIFF says so), as are PNMs;
    floats within 0..1 by 255; other floats and 32-bit integers by their own least and greatest value, with a note,
    except for integers within 0..255, which stay.
    """
    import numpy as np

    tags = getattr(image, "tag_v2", {})
    values = np.asarray(image)
    if image.mode == "I" and tags and tags.get(_SAMPLE_FORMAT, (1,))[0] == 1:
        values = values.view(np.uint32)  # unsigned in the file, signed in Pillow
    hidden = image.info.get("transparency")
    hidden = values == hidden if isinstance(hidden, int) else None  # a PNG's one see-through grey
    known = values[np.isfinite(values)] if image.mode == "F" else values
    if not known.size:
        raise ValueError("no value in it is a finite number")
    low, high = float(known.min()), float(known.max())
    if image.mode.startswith("I;16"):
        low, high = 0.0, float(2 ** tags.get(_BITS_PER_SAMPLE, (16,))[0] - 1)
    elif image.format == "PPM" and image.mode == "I":
        low, high = 0.0, 65535.0  # Pillow scales every PNM of more than 8 bits to this
    elif image.mode == "F" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif image.mode == "I" and low >= 0 and high <= 255:
        low, high = 0.0, 255.0
    else:
        notes.append(f"its grey values, {low:g} to {high:g}, are stretched to black to white")
    grey = np.empty(values.shape, np.uint8)
    for top in range(0, len(values), 256):  # in bands: float64 copies of the whole would be gigabytes
        band = np.nan_to_num(values[top : top + 256].astype(np.float64), nan=low, posinf=high, neginf=low)
        grey[top : top + 256] = np.rint((band - low) * (255 / ((high - low) or 1))).clip(0, 255)
    if tags.get(_PHOTOMETRIC) == 0:  # white is zero
        grey = 255 - grey
    if hidden is not None:
        grey[hidden] = 255
    return Image.fromarray(grey)


def _damaged(name: str, kind: str, error: Exception) -> InputError:
    kind = {"HEIF": "HEIC", "WEBP": "WebP", "JPEG2000": "JPEG 2000"}.get(kind, kind)
    do = "Get the file again from where it came, or save it anew as PNG"
    if isinstance(error, Image.UnidentifiedImageError):  # says no more than that
        return InputError(f"{name} begins like {kind} but is damaged, cut short or of a rare variety", do)
    reason = printable(str(error).split("\n")[0][:200]) or type(error).__name__
    return InputError(f"{name} is damaged or cut short ({kind}: {reason})", do)
