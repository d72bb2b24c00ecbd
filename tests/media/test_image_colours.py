"""Colour models, transparency and profiles: all become RGB as people see it."""

import io

import numpy as np
import pytest
from image_files import assert_like, load, noise, scene, see_through
from PIL import Image, ImageCms

# -- colours -----------------------------------------------------------------------------------------------------


def test_cmyk_jpeg_of_adobe_is_stored_inverted(tmp_path):
    scene().convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert b"Adobe" in (tmp_path / "a.jpg").read_bytes()
    assert_like(load(tmp_path / "a.jpg").image, scene(), 40)


def test_cmyk_jpeg_without_adobes_mark_is_not_inverted(tmp_path):
    """Pillow turns every CMYK JPEG over; browsers only those with the mark."""
    ink = np.asarray(scene().convert("CMYK"))
    buffer = io.BytesIO()
    Image.fromarray(255 - ink, "CMYK").save(buffer, "JPEG", quality=95)
    data = buffer.getvalue()
    at = data.index(b"\xff\xee")
    length = int.from_bytes(data[at + 2 : at + 4], "big")
    (tmp_path / "a.jpg").write_bytes(data[:at] + data[at + 2 + length :])
    assert_like(load(tmp_path / "a.jpg").image, scene(), 40)


def test_cmyk_tiff(tmp_path):
    scene().convert("CMYK").save(tmp_path / "a.tif")
    assert_like(load(tmp_path / "a.tif").image, scene(), 4)


def test_lab_tiff(tmp_path):
    lab = ImageCms.profileToProfile(
        scene(), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    lab.save(tmp_path / "a.tif")
    assert_like(load(tmp_path / "a.tif").image, scene(), 30)  # green lies at the edge of 8-bit Lab


def test_palette(tmp_path):
    scene().quantize(8).save(tmp_path / "a.png")
    assert_like(load(tmp_path / "a.png").image, scene(), 8)


def test_one_bit(tmp_path):
    image = Image.new("1", (16, 8))
    image.paste(1, (8, 0, 16, 8))
    image.save(tmp_path / "a.png")
    loaded = load(tmp_path / "a.png").image
    assert loaded.getpixel((0, 0)) == (0, 0, 0)
    assert loaded.getpixel((12, 4)) == (255, 255, 255)


def test_grey(tmp_path):
    noise(bands=1).save(tmp_path / "a.png")
    assert_like(load(tmp_path / "a.png").image, noise(bands=1), 0)


@pytest.mark.parametrize(
    "name, mode",
    [("a.png", "RGBA"), ("a.png", "LA"), ("a.webp", "RGBA"), ("a.tif", "RGBA"), ("a.avif", "RGBA"), ("a.png", "PA")],
)
def test_what_is_transparent_is_white(tmp_path, name, mode):
    """Dropping alpha would show the black that most programs leave underneath."""
    image = see_through("RGBA").quantize(4) if mode == "PA" else see_through(mode)
    image.save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
    loaded = load(tmp_path / name).image
    assert loaded.getpixel((15, 5)) == (255, 255, 255)
    assert abs(loaded.getpixel((5, 5))[0] - 128) < 4


def test_half_transparent_mixes_with_white(tmp_path):
    Image.new("RGBA", (4, 4), (255, 0, 0, 128)).save(tmp_path / "a.png")
    assert load(tmp_path / "a.png").image.getpixel((0, 0)) == pytest.approx((255, 127, 127), abs=1)


@pytest.mark.parametrize("suffix", [".png", ".gif"])
def test_a_palettes_see_through_colour_is_white(tmp_path, suffix):
    image = Image.new("P", (20, 10), 1)
    image.putpalette([10, 20, 30, 0, 0, 0])
    image.paste(0, (0, 0, 10, 10))
    image.save(tmp_path / f"a{suffix}", transparency=1)
    loaded = load(tmp_path / f"a{suffix}").image
    assert loaded.getpixel((15, 5)) == (255, 255, 255)
    assert loaded.getpixel((5, 5)) == (10, 20, 30)


@pytest.mark.parametrize("mode, key, other", [("RGB", (0, 0, 0), (9, 9, 9)), ("L", 0, 9)])
def test_a_single_see_through_colour_without_alpha(tmp_path, mode, key, other):
    image = Image.new(mode, (20, 10), key)
    image.paste(other, (0, 0, 10, 10))
    image.save(tmp_path / "a.png", transparency=key)
    loaded = load(tmp_path / "a.png").image
    assert loaded.getpixel((15, 5)) == (255, 255, 255)
    assert loaded.getpixel((5, 5)) == (9, 9, 9)


# -- profiles ----------------------------------------------------------------------------------------------------


def _swapped_profile() -> bytes:
    """An sRGB profile with the red and the blue colorant swapped, under another name."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(data[128:132], "big")
    places = {bytes(data[at : at + 4]): at for at in range(132, 132 + 12 * count, 12)}
    red, blue = places[b"rXYZ"], places[b"bXYZ"]
    data[red : red + 4], data[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(data).replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_a_colour_profile_is_followed(tmp_path, mode):
    image = Image.new("RGB", (8, 8), (200, 0, 0))
    image = image.quantize(4) if mode == "P" else image.convert(mode)
    image.save(tmp_path / "a.png", icc_profile=_swapped_profile())
    red, _, blue = load(tmp_path / "a.png").image.getpixel((4, 4))
    assert blue > 190 and red < 30


def test_srgb_passes_untouched(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    noise().save(tmp_path / "a.png", icc_profile=profile)
    assert_like(load(tmp_path / "a.png").image, noise(), 0)


@pytest.mark.parametrize("profile", [b"no profile at all", _swapped_profile()[:300]])
def test_a_broken_profile_is_noted_and_never_fatal(tmp_path, profile):
    noise().save(tmp_path / "a.png", icc_profile=profile)
    image = load(tmp_path / "a.png")
    assert_like(image.image, noise(), 0)
    assert "profile" in image.notes[0]


def test_a_profile_for_another_kind_of_colours_is_passed_over(tmp_path):
    noise(bands=1).save(tmp_path / "a.png", icc_profile=_swapped_profile())
    assert_like(load(tmp_path / "a.png").image, noise(bands=1), 0)
