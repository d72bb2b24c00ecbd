"""Pixels of every colour model and depth as 8-bit RGB in sRGB, on white: band by band, so that no second whole is made.

A converter is a function from a band of an image (whole rows of it) to an RGB image of the same size.
"""

from collections.abc import Callable, Sequence
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING

from PIL import Image, ImageChops

from mmcli.media.limits import PROFILE

if TYPE_CHECKING:
    from PIL import ImageCms

Converter = Callable[[Image.Image], Image.Image]

BAND = 1 << 20  # pixels converted at a time
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # TIFF 6.0 tags
_REDUCIBLE = ("L", "LA", "RGB", "RGBA", "CMYK", "YCbCr")  # modes of which neighbours may be averaged as they are
_DISPLAY_GAMMA = 2.2  # of sRGB, as a single number


def to_rgb(image: Image.Image, factor: int, notes: list[str], low: Image.Image | None = None) -> Image.Image:
    """The loaded `image` as RGB, both sides divided by `factor`; `notes` gets what cannot be done rightly.

    `low` holds the lower bytes of a 16-bit RGB image, of which `image` has the upper: its one transparent colour is
    compared with both.
    """
    convert = _converter(image, notes)
    if convert is None and factor == 1:
        return image
    see_through = _transparent_colour(image, low)
    reduced_first = image.mode in _REDUCIBLE and see_through is None  # quicker: less is left to convert
    width, height = image.size
    result = Image.new("RGB", (-(-width // factor), -(-height // factor)))
    rows = max(BAND // width // factor, 1) * factor
    for top in range(0, height, rows):
        box = (0, top, width, min(top + rows, height))
        band = image.crop(box)
        if factor > 1 and reduced_first:
            band = band.reduce(factor)
        rgb = convert(band) if convert else band
        if see_through is not None:
            rgb.paste("white", mask=see_through(band, low.crop(box) if low else None))
        result.paste(rgb.reduce(factor) if factor > 1 and not reduced_first else rgb, (0, top // factor))
    return result


def _converter(image: Image.Image, notes: list[str]) -> Converter | None:
    """None for what is RGB in sRGB already."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _deep_grey(image, notes)
    colours = _to_srgb(image, notes)
    steps: list[Converter] = []
    if image.mode == "CMYK" and image.format in ("JPEG", "MPO") and "adobe" not in image.info:
        # Adobe writes CMYK JPEGs inverted and marks them; Pillow turns every one over, the unmarked too.
        steps.append(ImageChops.invert)
    if image.mode in ("1", "L", "RGB") and "transparency" in image.info:
        steps.append(_without_transparency)
    elif image.has_transparency_data:
        grey = image.mode in ("LA", "La")
        return lambda band: _on_white(band.convert("RGBA"), "L" if grey else "RGB", colours)
    if not steps and colours is _plain and image.mode == "RGB":
        return None
    return lambda band: _all(steps, colours, band)


def _all(steps: list[Converter], colours: Converter, band: Image.Image) -> Image.Image:
    for step in steps:
        band = step(band)
    return colours(band)


def _plain(band: Image.Image) -> Image.Image:
    return band.convert("RGB")


def _on_white(clear: Image.Image, mode: str, colours: Converter) -> Image.Image:
    result = Image.new("RGB", clear.size, "white")
    result.paste(colours(clear.convert(mode)), mask=clear.getchannel("A"))
    return result


# -- a single transparent colour ---------------------------------------------------------------------------------


def _without_transparency(band: Image.Image) -> Image.Image:
    band = band.copy()
    del band.info["transparency"]
    return band


def _transparent_colour(
    image: Image.Image, low: Image.Image | None
) -> Callable[[Image.Image, Image.Image | None], Image.Image] | None:
    """A function from a band (and its lower bytes) to the mask of what has the image's one transparent colour."""
    key = image.info.get("transparency")
    if image.mode not in ("1", "L", "RGB") or key is None or isinstance(key, bytes):
        return None
    keys = key if isinstance(key, tuple) else (key,)
    if low is None:
        return lambda band, _: _equal(band, keys)
    upper, lower = [value >> 8 for value in keys], [value & 255 for value in keys]

    def same(band: Image.Image, below: Image.Image | None) -> Image.Image:
        assert below is not None  # it is cut from `low`
        return ImageChops.multiply(_equal(band, upper), _equal(below, lower))

    return same


def _equal(band: Image.Image, values: Sequence[int]) -> Image.Image:
    """255 where every channel of the band has its value, else 0."""
    channels = band.convert("L").split() if band.mode == "1" else band.split()
    masks = [
        channel.point([255 if at == value else 0 for at in range(256)])
        for channel, value in zip(channels, values, strict=True)
    ]
    mask = masks[0]
    for other in masks[1:]:
        mask = ImageChops.multiply(mask, other)
    return mask


# -- profiles and gamma ------------------------------------------------------------------------------------------


def _to_srgb(image: Image.Image, notes: list[str]) -> Converter:
    """Into RGB, through the image's colour profile or gamma where those say anything but sRGB."""
    profile, mode = image.info.get("icc_profile"), image.mode
    if not profile and mode != "LAB":
        return _through_gamma(image)
    if profile and len(profile) > PROFILE:
        notes.append("its colour profile is too large to be used, the colours are taken for sRGB")
        return _plain
    from PIL import ImageCms

    mode = {"P": "RGB", "RGBX": "RGB", "RGBA": "RGB", "PA": "RGB", "RGBa": "RGB", "LA": "L", "La": "L"}.get(mode, mode)
    mode = "L" if mode == "1" else mode
    try:
        origin = ImageCms.ImageCmsProfile(BytesIO(profile) if profile else ImageCms.createProfile("LAB"))
        space = origin.profile.xcolor_space.strip()
        description = (origin.profile.profile_description or "") if profile else ""
        if {"GRAY": "L", "Lab": "LAB"}.get(space, space) == mode and not description.startswith("sRGB"):
            transform = ImageCms.buildTransform(origin, ImageCms.createProfile("sRGB"), mode, "RGB")
            return partial(_transformed, transform=transform, mode=mode)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        notes.append("its colour profile cannot be used, the colours are taken for sRGB")
    return _plain


def _transformed(band: Image.Image, transform: "ImageCms.ImageCmsTransform", mode: str) -> Image.Image:
    result = Image.new("RGB", band.size)
    transform.apply(band if band.mode == mode else band.convert(mode), result)
    return result


def _through_gamma(image: Image.Image) -> Converter:
    """A PNG may say by which power its values were made darker or lighter (gAMA); sRGB overrides it."""
    gamma = image.info.get("gamma")
    if image.format != "PNG" or not gamma or "srgb" in image.info:
        return _plain
    power = 1 / (gamma * _DISPLAY_GAMMA)
    if abs(power - 1) < 0.05:  # sRGB in other words
        return _plain
    curve = [round(255 * (value / 255) ** power) for value in range(256)] * 3
    return lambda band: band.convert("RGB").point(curve)


# -- more than 8 bits --------------------------------------------------------------------------------------------


def _deep_grey(image: Image.Image, notes: list[str]) -> Converter:
    """From greys of more than 8 bits, where Pillow's own conversion would clip all above 255 to white.

    16-bit integers are scaled by the full range of their type (of their 12 bits, where a TIFF says so), as are PNMs;
    floats within 0..1 by 255; other floats and 32-bit integers by their own least and greatest value, with a note,
    except for integers within 0..255, which stay.
    """
    import numpy as np

    tags = getattr(image, "tag_v2", {})
    unsigned = image.mode == "I" and bool(tags) and tags.get(_SAMPLE_FORMAT, (1,))[0] == 1
    hidden = image.info.get("transparency")  # a PNG's one transparent grey
    low, high = _range(image, tags, unsigned, notes)

    def convert(band: Image.Image) -> Image.Image:
        values = np.asarray(band)
        values = values.view(np.uint32) if unsigned else values  # unsigned in the file, signed in Pillow
        with np.errstate(invalid="ignore"):  # some of the numbers that are none make noise when they are widened
            known = np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low)
        grey = np.rint((known - low) * (255 / ((high - low) or 1))).clip(0, 255).astype(np.uint8)
        grey = 255 - grey if tags.get(_PHOTOMETRIC) == 0 else grey  # white is zero
        if isinstance(hidden, int):
            grey[values == hidden] = 255
        return Image.fromarray(grey).convert("RGB")

    return convert


def _range(image: Image.Image, tags, unsigned: bool, notes: list[str]) -> tuple[float, float]:
    """The values that become black and white."""
    import numpy as np

    if image.mode.startswith("I;16"):
        return 0.0, float(2 ** tags.get(_BITS_PER_SAMPLE, (16,))[0] - 1)
    if image.format == "PPM" and image.mode == "I":
        return 0.0, 65535.0  # Pillow scales every PNM of more than 8 bits to this
    low, high, rows = np.inf, -np.inf, max(BAND // image.width, 1)
    for top in range(0, image.height, rows):
        values = np.asarray(image.crop((0, top, image.width, min(top + rows, image.height))))
        values = values.view(np.uint32) if unsigned else values
        known = values[np.isfinite(values)] if image.mode == "F" else values
        if known.size:
            low, high = min(low, float(known.min())), max(high, float(known.max()))
    if low > high:
        raise ValueError("no value in it is a finite number")
    if image.mode == "F" and low >= 0 and high <= 1:
        return 0.0, 1.0
    if image.mode == "I" and low >= 0 and high <= 255:
        return 0.0, 255.0
    notes.append(f"its grey values, {low:g} to {high:g}, are stretched to black to white")
    return low, high
