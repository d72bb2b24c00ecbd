"""Image files for tests, as they come: made with Pillow, or by hand where Pillow cannot write them."""

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
from file_sources import refused, source
from PIL import Image

from mmcli.media.image import LoadedImage, load_image

RAMP = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)


def load(path, **options) -> LoadedImage:
    image = load_image(source(path), **options)
    assert image.image.mode == "RGB"
    return image


def fails(path, **options) -> str:
    return refused(load, path, **options)


def scene(width=48, height=32) -> Image.Image:
    """Red left, blue right, a green bar on top: tells all eight orientations apart."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = 200
    pixels[:, width // 2 :, 2] = 200
    pixels[: height // 4] = (0, 200, 0)
    return Image.fromarray(pixels)


def noise(width=64, height=48, bands=3) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, bands), np.uint8)
    return Image.fromarray(pixels if bands > 1 else pixels[..., 0])


def assert_like(image, expected, tolerance=30):
    difference = np.abs(np.asarray(image, np.int16) - np.asarray(expected.convert("RGB"), np.int16))
    assert image.size == expected.size
    assert difference.mean() <= tolerance / 4
    assert np.percentile(difference, 90) <= tolerance


def with_orientation(image, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, "PNG", exif=exif)
    return Image.open(buffer)


def see_through(mode: str) -> Image.Image:
    """Left opaque mid grey, right fully transparent over black."""
    image = Image.new("RGBA", (20, 10), (0, 0, 0, 0))
    image.paste((128, 128, 128, 255), (0, 0, 10, 10))
    return image.convert(mode)


def assert_ramp(image, values=RAMP, peak=65535):
    expected = np.rint(values.astype(float) * 255 / peak)
    assert np.abs(np.asarray(image)[..., 0] - expected).max() <= 1
    assert len(np.unique(np.asarray(image))) > 100, "not clipped"


def png(width, height, depth, colour, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG by hand: `rows` hold their filter bytes; colour 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + body


def tiff(values: np.ndarray, *, bits: int, sample_format: int, photometric: int = 1, order: str = "<") -> bytes:
    """An uncompressed grey or RGB TIFF of one strip, by hand."""
    height, width = values.shape[:2]
    bands = values.shape[2] if values.ndim == 3 else 1
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    extra = struct.pack(f"{order}3H", *[bits] * 3) if bands == 3 else b""
    table = 8 + len(data) + len(extra)
    entries = [(256, 4, 1, width), (257, 4, 1, height), (259, 3, 1, 1), (262, 3, 1, photometric), (273, 4, 1, 8)]
    entries.append((258, 3, 3, 8 + len(data)) if bands == 3 else (258, 3, 1, bits))
    entries += [(277, 3, 1, bands), (278, 4, 1, height), (279, 4, 1, len(data)), (339, 3, 1, sample_format)]
    ifd = struct.pack(f"{order}H", len(entries))
    for tag, kind, count, value in sorted(entries):
        packed = struct.pack(f"{order}HH", value, 0) if kind == 3 and count == 1 else struct.pack(f"{order}I", value)
        ifd += struct.pack(f"{order}HHI", tag, kind, count) + packed
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(f"{order}I", table) + data + extra + ifd + b"\0\0\0\0"


def in_python(code: str, folder: Path) -> subprocess.CompletedProcess:
    """`code` in a Python of its own, where no test runner stands between warnings and stderr."""
    prelude = (
        "from pathlib import Path, PurePosixPath\n"
        "def load(name, **options):\n"
        "    from mmcli.media.image import load_image\n"
        "    from mmcli.media.sources import Source\n"
        "    return load_image(Source(name, Path(name), None, PurePosixPath(name)), **options)\n"
        "def peak():\n"  # not ru_maxrss, which a child takes over from its parent
        "    lines = Path('/proc/self/status').read_text().splitlines()\n"
        "    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith('VmHWM'))\n"
    )
    root = str(Path(__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "PYTHONWARNINGS": "always"}
    return subprocess.run(
        [sys.executable, "-c", prelude + code], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
