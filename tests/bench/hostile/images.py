"""Damaged image files of every format that Pillow writes, through what reads images for all commands."""

import io
import random
import struct
import zlib
from functools import cache
from pathlib import Path, PurePosixPath

import numpy as np
from bench.hostile.damage import damage
from PIL import Image, features

READ = (  # (format, options) of files that mmcli reads, so that damage reaches their decoders
    ("JPEG", {"quality": 90}), ("JPEG", {"progressive": True}), ("JPEG", {"mode": "CMYK"}), ("JPEG", {"mode": "L"}),
    ("MPO", {"save_all": True}),
    ("PNG", {}), ("PNG", {"mode": "RGBA"}), ("PNG", {"mode": "LA"}), ("PNG", {"mode": "P"}), ("PNG", {"mode": "I;16"}),
    ("PNG", {"mode": "1"}), ("PNG", {"save_all": True}),
    ("GIF", {}), ("GIF", {"save_all": True}), ("WEBP", {}), ("WEBP", {"lossless": True, "mode": "RGBA"}),
    ("WEBP", {"save_all": True}), ("AVIF", {}), ("AVIF", {"save_all": True}), ("BMP", {}), ("BMP", {"mode": "P"}),
    ("JPEG2000", {}), ("JPEG2000", {"mode": "RGBA", "irreversible": True}), ("PPM", {}), ("PPM", {"mode": "L"}),
    ("PPM", {"mode": "F"}),
    ("TIFF", {}), ("TIFF", {"save_all": True}), ("TIFF", {"mode": "I;16"}), ("TIFF", {"mode": "F"}),
    ("TIFF", {"compression": "tiff_lzw"}), ("TIFF", {"compression": "jpeg"}),
    ("TIFF", {"compression": "tiff_adobe_deflate", "tiffinfo": {317: 2}}), ("TIFF", {"compression": "packbits"}),
    ("TIFF", {"mode": "1", "compression": "group4"}), ("TIFF", {"mode": "CMYK"}), ("TIFF", {"big_tiff": True}),
    ("HEIF", {}),
)  # fmt: skip
REFUSED = ("BLP", "DDS", "DIB", "EPS", "ICNS", "ICO", "IM", "MSP", "PCX", "PDF", "SGI", "SPIDER", "TGA", "XBM", "QOI")
_MODES = {"MSP": "1", "XBM": "1", "SPIDER": "F", "BLP": "P"}


def prepare() -> None:
    """Make the whole images."""
    whole()


def make(rng: random.Random, folder: Path) -> Path:
    """A damaged image in `folder`."""
    kind, data = rng.choice(whole())
    data = damage(data, rng, [other for _, other in whole()])
    if kind == "PNG" and rng.random() < 0.7:  # else most damage would end at the checksums
        data = _checksummed(data)
    path = folder / "picture"
    path.write_bytes(data)
    return path


def exercise(path: Path) -> str:
    """Read it as the commands do: small for a model, or in full for an overlay."""
    from mmcli.media.image import load_image
    from mmcli.media.sources import Source

    source = Source(path.name, path, None, PurePosixPath(path.name))
    image = load_image(source, side=896 if len(path.read_bytes()) % 2 else None)
    assert image.image.mode == "RGB" and image.image.size[0] <= image.width
    return "read"


@cache
def whole() -> list[tuple[str, bytes]]:
    """(format, bytes) of undamaged images, made once; those of formats that are read stand there three times."""
    Image.init()
    made = [(kind, _saved(kind, **options)) for kind, options in READ if _can_write(kind)]
    others = [(kind, _saved(kind, mode=_MODES.get(kind, "RGB"))) for kind in REFUSED if kind in Image.SAVE]
    return made * 3 + others


def _can_write(kind: str) -> bool:
    if kind == "HEIF":
        try:
            import pillow_heif

            pillow_heif.register_heif_opener()
        except ImportError:
            return False
    return kind in Image.SAVE and (kind != "AVIF" or features.check("avif"))


def _saved(kind: str, *, mode: str = "RGB", **options) -> bytes:
    size = (64, 64) if kind in ("ICNS", "ICO", "BLP") else (150, 100)
    y, x = np.mgrid[: size[1], : size[0]]
    noise = np.random.default_rng(0).integers(0, 60, (size[1], size[0], 3))
    image = Image.fromarray((np.stack([x, y, x + y], 2) % 190 + noise).astype(np.uint8))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 257)
    elif mode != "RGB":
        image = image.convert(mode)
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.linear_gradient("L").resize(size))
    if options.get("save_all"):
        options["append_images"] = [image.rotate(90), image.rotate(180)]
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _checksummed(data: bytes) -> bytes:
    """The same chunks with the checksums that belong to them."""
    fixed, at = bytearray(data), 8
    while at + 12 <= len(data):
        length = struct.unpack_from(">I", data, at)[0]
        if at + 12 + length > len(data):
            break
        struct.pack_into(">I", fixed, at + 8 + length, zlib.crc32(data[at + 4 : at + 8 + length]))
        at += 12 + length
    return bytes(fixed)
