"""PNGs: transparency at every depth, gamma, checksums, ends and bombs."""

import struct
import sys
import zlib

import numpy as np
import pytest
from image_files import fails, in_python, load, png, scene
from PIL import Image

WHITE = (255, 255, 255)


def packed(values: np.ndarray, bits: int) -> bytes:
    """Rows of samples below 8 bits, each with its filter byte."""
    shifts = np.arange(bits - 1, -1, -1)
    return b"".join(b"\0" + np.packbits((row[:, None] >> shifts & 1).ravel()).tobytes() for row in values)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_transparent_grey_at_every_depth(tmp_path, bits):
    most = 2**bits - 1
    for key in {0, 1, most}:
        values = np.arange(16).reshape(1, 16) % (most + 1)
        (tmp_path / "a.png").write_bytes(png(16, 1, bits, 0, packed(values, bits), (b"tRNS", struct.pack(">H", key))))
        shown = np.asarray(load(tmp_path / "a.png").image)[0]
        expected = np.where(values[0] == key, 255, values[0] * 255 // most)
        assert np.array_equal(shown, np.repeat(expected[:, None], 3, 1)), key


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_transparent_palette_entries_at_every_depth(tmp_path, bits):
    most = min(2**bits, 16)
    values = np.arange(16).reshape(1, 16) % most
    palette = bytes(channel for entry in range(most) for channel in (entry * 10, 0, 200))
    alpha = bytes([0, 128][:most])
    chunks = ((b"PLTE", palette), (b"tRNS", alpha))
    (tmp_path / "a.png").write_bytes(png(16, 1, bits, 3, packed(values, bits), *chunks))
    image = load(tmp_path / "a.png").image
    assert image.getpixel((0, 0)) == WHITE
    assert image.getpixel((1, 0)) == pytest.approx((132, 127, 227), abs=1)
    if most > 2:
        assert image.getpixel((2, 0)) == (20, 0, 200)


def test_a_transparent_colour_of_16_bits_is_that_one_alone(tmp_path):
    """Not its neighbours with the same upper bytes, which are all that Pillow gives."""
    key = (0x1234, 0x5678, 0x9ABC)
    row = [key, (0x1235, 0x5678, 0x9ABC), (0x1234, 0x5678, 0x9A00), (0, 0, 0)]
    rows = b"\0" + np.array(row, ">u2").tobytes()
    for interlaced in (0, 1):
        data = bytearray(png(4, 1, 16, 2, rows, (b"tRNS", struct.pack(">3H", *key))))
        if interlaced:  # one row of 4: passes 1 (x 0), 2 (none: x 4), 4 (x 2), 6 (x 1, 3)
            passes = [[row[0]], [row[2]], [row[1], row[3]]]
            rows = b"".join(b"\0" + np.array(part, ">u2").tobytes() for part in passes)
            data = bytearray(png(4, 1, 16, 2, rows, (b"tRNS", struct.pack(">3H", *key))))
            data[28] = 1
            data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
        (tmp_path / "a.png").write_bytes(data)
        image = load(tmp_path / "a.png").image
        expected = [WHITE, (0x12, 0x56, 0x9A), (0x12, 0x56, 0x9A), (0, 0, 0)]
        assert [image.getpixel((x, 0)) for x in range(4)] == expected


@pytest.mark.parametrize(
    "chunks, shown",
    [
        ([(b"gAMA", 45455)], 100),
        ([(b"gAMA", 100000)], round(255 * (100 / 255) ** (1 / 2.2))),  # linear light
        ([(b"gAMA", 100000), (b"sRGB", 0)], 100),
    ],
)
def test_gamma_is_followed_unless_it_is_that_of_srgb(tmp_path, chunks, shown):
    made = [(kind, struct.pack(">I", value) if kind == b"gAMA" else b"\0") for kind, value in chunks]
    (tmp_path / "a.png").write_bytes(png(1, 1, 8, 0, b"\0\x64", *made))
    assert load(tmp_path / "a.png").image.getpixel((0, 0)) == pytest.approx((shown,) * 3, abs=1)


def test_pixels_that_do_not_fit_their_checksum_are_damaged(tmp_path):
    """Stored, not deflated, a turned bit gives another image of the same form."""
    rows = b"".join(b"\0" + np.asarray(scene())[y].tobytes() for y in range(32))
    data = bytearray(png(48, 32, 8, 2, rows).replace(zlib.compress(rows), zlib.compress(rows, 0)))
    stored = zlib.compress(rows, 0)
    body = b"IDAT" + stored
    data = bytearray(png(48, 32, 8, 2, b""))
    at = data.index(b"IDAT") - 4
    data[at:] = struct.pack(">I", len(stored)) + body + struct.pack(">I", zlib.crc32(body)) + data[-12:]
    (tmp_path / "a.png").write_bytes(data)
    assert load(tmp_path / "a.png").image.size == (48, 32)
    data[data.index(b"IDAT") + 2000] ^= 4
    (tmp_path / "a.png").write_bytes(data)
    assert "checksums" in fails(tmp_path / "a.png")


def test_without_its_end_but_with_all_pixels(tmp_path):
    scene().save(tmp_path / "whole.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "whole.png").read_bytes()[:-12])
    image = load(tmp_path / "a.png")
    assert "end is missing" in image.notes[0]
    assert np.array_equal(np.asarray(image.image), np.asarray(scene()))


def test_a_million_chunks(tmp_path):
    whole = png(1, 1, 8, 0, b"\0\x64")
    chunk = b"\0\0\0\0teST" + struct.pack(">I", zlib.crc32(b"teST"))
    (tmp_path / "a.png").write_bytes(whole[:33] + chunk * 120_000 + whole[33:])
    assert "too many pieces" in fails(tmp_path / "a.png")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", [b"iCCP", b"zTXt", b"iTXt"])
def test_compressed_bombs_beside_the_pixels_take_no_memory(tmp_path, kind):
    bomb = zlib.compress(bytes(300 << 20), 9)
    head = {b"iCCP": b"p\0\0", b"zTXt": b"Comment\0\0", b"iTXt": b"Comment\0\1\0\0\0"}[kind]
    (tmp_path / "a.png").write_bytes(png(1, 1, 8, 0, b"\0\x64", (kind, head + bomb)))
    code = "from mmcli.errors import InputError\ntry: load('a.png')\nexcept InputError: pass\nprint(peak())"
    assert float(in_python(code, tmp_path).stdout) < 150


def test_alpha_of_a_large_image_is_averaged_as_it_is_seen(tmp_path):
    """Black under full transparency must not darken what is beside it when the image is made smaller."""
    image = Image.new("RGBA", (2048, 2048), (0, 0, 0, 0))
    image.paste((200, 0, 0, 255), (0, 0, 2048, 1023))
    image.save(tmp_path / "a.png")
    image = load(tmp_path / "a.png", side=896)
    assert image.image.size == (1024, 1024) and (image.width, image.height) == (2048, 2048)
    red, green, blue = image.image.getpixel((5, 511))  # half red, half white
    assert red > 220 and green == pytest.approx(128, abs=2) and blue == green
