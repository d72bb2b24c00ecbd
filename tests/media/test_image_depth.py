"""More than 8 bits a channel: scaled to 8, never clipped."""

import struct

import numpy as np
import pytest
from image_files import RAMP, assert_ramp, fails, load, png, tiff
from PIL import Image


def test_16_bit_grey_png_is_scaled_not_clipped(tmp_path):
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in RAMP)
    (tmp_path / "a.png").write_bytes(png(16, 16, 16, 0, rows))
    assert_ramp(load(tmp_path / "a.png").image)


def test_16_bit_grey_png_with_a_see_through_grey(tmp_path):
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in RAMP)
    (tmp_path / "a.png").write_bytes(png(16, 16, 16, 0, rows, (b"tRNS", b"\0\0")))
    assert load(tmp_path / "a.png").image.getpixel((0, 0)) == (255, 255, 255)
    assert load(tmp_path / "a.png").image.getpixel((1, 0)) == (1, 1, 1)


@pytest.mark.parametrize("colour, bands", [(2, 3), (4, 2), (6, 4)], ids=["RGB", "grey and alpha", "RGBA"])
def test_16_bit_png_of_several_channels(tmp_path, colour, bands):
    values = np.repeat(RAMP[..., None], bands, 2)
    if bands in (2, 4):
        values[..., -1] = 65535
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    (tmp_path / "a.png").write_bytes(png(16, 16, 16, colour, rows))
    assert_ramp(load(tmp_path / "a.png").image)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
def test_16_bit_grey_tiff(tmp_path, compression):
    Image.fromarray(RAMP).save(tmp_path / "a.tif", compression=compression)
    assert_ramp(load(tmp_path / "a.tif").image)


@pytest.mark.parametrize("order", "<>")
def test_16_bit_tiff_of_either_byte_order(tmp_path, order):
    (tmp_path / "a.tif").write_bytes(tiff(RAMP, bits=16, sample_format=1, order=order))
    assert_ramp(load(tmp_path / "a.tif").image)


@pytest.mark.parametrize("order", "<>")
def test_16_bit_rgb_tiff(tmp_path, order):
    values = np.repeat(RAMP[..., None], 3, 2)
    (tmp_path / "a.tif").write_bytes(tiff(values, bits=16, sample_format=1, photometric=2, order=order))
    assert_ramp(load(tmp_path / "a.tif").image)


def test_16_bit_tiff_whose_white_is_zero(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff(65535 - RAMP, bits=16, sample_format=1, photometric=0))
    assert_ramp(load(tmp_path / "a.tif").image)


def test_12_bit_tiff_is_scaled_by_its_12_bits(tmp_path):
    values = (RAMP >> 4).ravel()
    first, second = values[0::2].astype(np.uint16), values[1::2].astype(np.uint16)
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 1).astype(np.uint8)
    made = tiff(packed.reshape(16, 24), bits=12, sample_format=1)
    width_at = made.index(struct.pack("<HHI", 256, 4, 1)) + 8
    (tmp_path / "a.tif").write_bytes(made[:width_at] + struct.pack("<I", 16) + made[width_at + 4 :])
    assert_ramp(load(tmp_path / "a.tif").image, RAMP >> 4, 4095)


@pytest.mark.parametrize(
    "values, expected, noted",
    [
        (np.array([[0, 1000, 4000]], np.int32), [0, 64, 255], True),
        (np.array([[-100, 0, 100]], np.int32), [0, 128, 255], True),
        (np.array([[0, 100, 255]], np.int32), [0, 100, 255], False),  # 8-bit values in a wide type stay
        (np.array([[2**31, 3 * 2**30, 2**32 - 1]], np.uint32), [0, 128, 255], True),  # beyond what is signed
        (np.array([[0, 0.5, 1]], np.float32), [0, 128, 255], False),
        (np.array([[0.2, 0.4, 0.6]], np.float32), [51, 102, 153], False),  # within 0..1: not stretched
        (np.array([[-5, 0, 5]], np.float32), [0, 128, 255], True),
        (np.array([[7, 7, 7]], np.float32), [0, 0, 0], True),  # flat: no range to divide by
        (np.array([[np.nan, 0, np.inf]], np.float32), [0, 0, 255], False),
    ],
)
def test_32_bit_greys_are_stretched_not_clipped(tmp_path, values, expected, noted):
    sample_format = {"i": 2, "u": 1, "f": 3}[values.dtype.kind]
    (tmp_path / "a.tif").write_bytes(tiff(values, bits=32, sample_format=sample_format))
    image = load(tmp_path / "a.tif")
    if np.isinf(values).any():  # one known value, 0, lies within 0..1
        expected = [0, 0, 255]
    assert np.asarray(image.image)[0, :, 0].tolist() == pytest.approx(expected, abs=1)
    assert any("stretched" in note for note in image.notes) == noted


def test_a_tiff_without_one_finite_value(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff(np.full((2, 2), np.nan, np.float32), bits=32, sample_format=3))
    assert "finite" in fails(tmp_path / "a.tif")


def test_pnm_of_more_than_8_bits(tmp_path):
    values = (RAMP >> 6).astype(">u2")
    (tmp_path / "a.pgm").write_bytes(b"P5 16 16 1023\n" + values.tobytes())
    assert_ramp(load(tmp_path / "a.pgm").image, values, 1023)
