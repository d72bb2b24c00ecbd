"""Every quirk of picture files, each built as such files come: with Pillow, or by hand where Pillow cannot write it."""

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from mmcli.errors import InputError
from mmcli.media.image import PIXEL_LIMIT, load_picture
from mmcli.media.sources import Source


def source(path) -> Source:
    return Source(str(path), Path(path), None, PurePosixPath(Path(path).name))


def load(path, **options):
    picture = load_picture(source(path), **options)
    assert picture.image.mode == "RGB"
    return picture


def fails(path, **options) -> str:
    with pytest.raises(InputError) as caught:
        load(path, **options)
    message = str(caught.value)
    assert Path(path).name in message, "the file is named"
    assert "\n" not in message
    return message


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


def png(width, height, depth, colour, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG by hand: `rows` hold their filter bytes; colour 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + body


# -- formats -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "suffix, options",
    [
        (".jpg", {"quality": 95}),
        (".png", {}),
        (".webp", {"lossless": True}),
        (".gif", {}),
        (".tif", {}),
        (".tiff", {"compression": "tiff_lzw"}),
        (".bmp", {}),
        (".avif", {"quality": 95}),
        (".jp2", {}),
        (".ppm", {}),
    ],
)
def test_opens_the_formats_people_have(tmp_path, suffix, options):
    path = tmp_path / f"picture{suffix}"
    scene().save(path, **options)
    picture = load(path)
    assert (picture.width, picture.height) == (48, 32)
    assert picture.notes == ()
    assert_like(picture.image, scene())


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "AVIF", "TIFF"])
def test_the_content_decides_not_the_name(tmp_path, kind):
    path = tmp_path / "holiday.jpg"
    scene().save(path, format=kind)
    assert_like(load(path).image, scene())


def test_bytes_come_from_any_source_without_seeking():
    buffer = io.BytesIO()
    scene().save(buffer, "PNG")
    reading, writing = os.pipe()
    os.write(writing, buffer.getvalue())
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        picture = load_picture(Source("-", None, None, PurePosixPath("stdin"), stream=stream))
    assert_like(picture.image, scene(), 0)


def test_carries_nothing_of_the_file_into_what_is_drawn_on_it(tmp_path):
    scene().save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0", dpi=(72, 72))
    assert load(tmp_path / "a.jpg").image.info == {}


# -- HEIC --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["photo.heic", "photo.jpg"], ids=["named so", "named .jpg, as phones send it"])
def test_heic_is_known_by_its_content(tmp_path, name):
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(scene(64, 64)).save(tmp_path / "made.heic", quality=95)
    (tmp_path / "made.heic").rename(tmp_path / name)
    assert_like(load(tmp_path / name).image, scene(64, 64))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_is_turned_once(tmp_path, orientation):
    """Its decoder turns the picture itself; the EXIF that stays in the file must not turn it again."""
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    exif = Image.Exif()
    exif[0x0112] = orientation
    scene(64, 48).save(tmp_path / "a.heic", exif=exif.tobytes(), quality=95)
    upright = ImageOps.exif_transpose(_with_orientation(scene(64, 48), orientation))
    picture = load(tmp_path / "a.heic")
    assert (picture.width, picture.height) == upright.size
    assert_like(picture.image, upright)


def test_heic_without_its_extra_names_the_command(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(struct.pack(">I", 24) + b"ftypheic" + b"\0\0\0\0mif1heic" + b"\0" * 64)
    message = _in_python(
        "import sys; sys.modules['pillow_heif'] = None\n"
        "from mmcli.errors import InputError\n"
        "try: load('photo.jpg')\n"
        "except InputError as error: print(error)",
        tmp_path,
    ).stdout
    assert "photo.jpg is a HEIC picture" in message
    assert "pip install 'mmcli[heic]'" in message


# -- orientation -------------------------------------------------------------------------------------------------


def _with_orientation(image, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, "PNG", exif=exif)
    return Image.open(buffer)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_turns_the_picture_upright_and_reports_that_size(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned{suffix}"
    scene().save(path, exif=exif, **({"quality": 95} if suffix in (".jpg", ".webp", ".avif") else {}))
    upright = ImageOps.exif_transpose(_with_orientation(scene(), orientation))
    picture = load(path)
    assert (picture.width, picture.height) == upright.size == ((48, 32) if orientation < 5 else (32, 48))
    assert_like(picture.image, upright)


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0" + b"\xff" * 40,  # no TIFF header in it
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x63\0\0\0\0\0\0",  # orientation 99
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x03up\0\0\0\0\0\0",  # orientation "up"
        b"Exif\0\0MM\0*\0\0\xff\xff",  # leads beyond its end
    ],
)
def test_broken_exif_takes_nothing_from_the_picture(tmp_path, exif):
    scene().save(tmp_path / "a.jpg", exif=exif, quality=95)
    picture = load(tmp_path / "a.jpg")
    assert (picture.width, picture.height) == (48, 32)
    assert_like(picture.image, scene())


# -- frames ------------------------------------------------------------------------------------------------------


def _animation(path, **options):
    colours = ["red", "lime", "blue"]
    first, *others = [Image.new("RGB", (20, 10), colour) for colour in colours]
    first.save(path, save_all=True, append_images=others, **options)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".tif", ".avif"])
def test_of_several_frames_the_first_is_used_and_said(tmp_path, suffix):
    path = tmp_path / f"moving{suffix}"
    _animation(path)
    picture = load(path)
    assert picture.notes == ("the first of 3 frames is used",)
    assert_like(picture.image, Image.new("RGB", (20, 10), "red"))


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".tif"])
def test_another_frame_can_be_chosen(tmp_path, suffix):
    path = tmp_path / f"moving{suffix}"
    _animation(path)
    picture = load(path, frame=2)
    assert picture.notes == ("frame 2 of 3 is used (counted from 0)",)
    assert_like(picture.image, Image.new("RGB", (20, 10), "blue"))


@pytest.mark.parametrize("frame", [3, -1])
def test_a_frame_that_is_not_there_is_an_error(tmp_path, frame):
    _animation(tmp_path / "moving.gif")
    assert "it has 3 frames, 0 to 2" in fails(tmp_path / "moving.gif", frame=frame)
    scene().save(tmp_path / "still.png")
    assert "only frame 0" in fails(tmp_path / "still.png", frame=frame)


def test_pages_of_a_tiff_have_their_own_sizes(tmp_path):
    scene().save(tmp_path / "pages.tif", save_all=True, append_images=[scene(20, 60)])
    assert load(tmp_path / "pages.tif", frame=1).image.size == (20, 60)


def test_the_preview_inside_a_phone_jpeg_is_no_frame_to_speak_of(tmp_path):
    scene().save(tmp_path / "phone.jpg", format="MPO", save_all=True, append_images=[scene(24, 16)], quality=95)
    picture = load(tmp_path / "phone.jpg")
    assert picture.notes == ()
    assert_like(picture.image, scene())


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


def _see_through(mode: str) -> Image.Image:
    """Left opaque mid grey, right fully transparent over black."""
    image = Image.new("RGBA", (20, 10), (0, 0, 0, 0))
    image.paste((128, 128, 128, 255), (0, 0, 10, 10))
    return image.convert(mode)


@pytest.mark.parametrize(
    "name, mode",
    [("a.png", "RGBA"), ("a.png", "LA"), ("a.webp", "RGBA"), ("a.tif", "RGBA"), ("a.avif", "RGBA"), ("a.png", "PA")],
)
def test_what_is_transparent_is_white(tmp_path, name, mode):
    """Dropping alpha would show the black that most programs leave underneath."""
    image = _see_through("RGBA").quantize(4) if mode == "PA" else _see_through(mode)
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


# -- more than 8 bits --------------------------------------------------------------------------------------------

RAMP = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)


def assert_ramp(image, values=RAMP, peak=65535):
    expected = np.rint(values.astype(float) * 255 / peak)
    assert np.abs(np.asarray(image)[..., 0] - expected).max() <= 1
    assert len(np.unique(np.asarray(image))) > 100, "not clipped"


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
    picture = load(tmp_path / "a.tif")
    if np.isinf(values).any():  # one known value, 0, lies within 0..1
        expected = [0, 0, 255]
    assert np.asarray(picture.image)[0, :, 0].tolist() == pytest.approx(expected, abs=1)
    assert any("stretched" in note for note in picture.notes) == noted


def test_a_tiff_without_one_finite_value(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff(np.full((2, 2), np.nan, np.float32), bits=32, sample_format=3))
    assert "finite" in fails(tmp_path / "a.tif")


def test_pnm_of_more_than_8_bits(tmp_path):
    values = (RAMP >> 6).astype(">u2")
    (tmp_path / "a.pgm").write_bytes(b"P5 16 16 1023\n" + values.tobytes())
    assert_ramp(load(tmp_path / "a.pgm").image, values, 1023)


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
    picture = load(tmp_path / "a.png")
    assert_like(picture.image, noise(), 0)
    assert "profile" in picture.notes[0]


def test_a_profile_for_another_kind_of_colours_is_passed_over(tmp_path):
    noise(bands=1).save(tmp_path / "a.png", icc_profile=_swapped_profile())
    assert_like(load(tmp_path / "a.png").image, noise(bands=1), 0)


# -- large pictures ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size, side, decoded", [((1600, 1200), 448, (800, 600)), ((1600, 400), 448, (1600, 400))])
def test_large_jpegs_are_decoded_smaller_but_report_their_size(tmp_path, size, side, decoded):
    """Both sides stay as long as asked, for a model that squashes the picture to a square."""
    scene(*size).save(tmp_path / "a.jpg", quality=90)
    picture = load(tmp_path / "a.jpg", side=side)
    assert (picture.width, picture.height) == size
    assert picture.image.size == decoded


def test_reduced_decoding_and_a_turn_go_together(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    scene(1602, 1201).save(tmp_path / "a.jpg", quality=90, exif=exif)
    picture = load(tmp_path / "a.jpg", side=300)
    assert (picture.width, picture.height) == (1201, 1602)
    assert picture.image.size == (301, 401)
    assert_like(picture.image, scene(401, 301).transpose(Image.Transpose.ROTATE_270))


@pytest.mark.parametrize("width, height", [(50_000, 50_000), (15_000, 20_000)], ids=["bomb for Pillow", "ours alone"])
def test_too_many_pixels_are_refused_before_decoding(tmp_path, width, height):
    (tmp_path / "bomb.png").write_bytes(png(width, height, 8, 2, b""))
    message = fails(tmp_path / "bomb.png")
    assert f"{width} × {height}" in message and str(PIXEL_LIMIT // 10**6) in message


def test_a_picture_beyond_pillows_own_limit_opens(tmp_path):
    """200 megapixels come out of phones; Pillow alone refuses from 179 on."""
    size = (20_000, 10_000)
    (tmp_path / "large.png").write_bytes(png(*size, 1, 0, (b"\0" + b"\xff" * 2500) * size[1]))
    message = _in_python("picture = load('large.png'); print(picture.width, picture.height)", tmp_path)
    assert message.stdout.split() == ["20000", "10000"]
    assert message.stderr == ""


# -- damage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [0.02, 0.3, 0.7, 0.97])
@pytest.mark.parametrize(
    "suffix, options",
    [
        (".jpg", {}),
        (".jpg", {"progressive": True}),
        (".png", {}),
        (".gif", {}),
        (".webp", {}),
        (".webp", {"lossless": True}),
        (".tif", {}),
        (".tif", {"compression": "tiff_lzw"}),
        (".bmp", {}),
        (".avif", {}),
        (".heic", {}),
        (".jp2", {}),
        (".ppm", {}),
    ],
)
def test_a_file_cut_short_is_an_error_not_half_a_picture(tmp_path, suffix, options, kept):
    if suffix == ".heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    noise(200, 150).save(tmp_path / f"whole{suffix}", **options)
    data = (tmp_path / f"whole{suffix}").read_bytes()
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(data[: int(len(data) * kept)])
    fails(path)


def test_an_empty_file(tmp_path):
    (tmp_path / "empty.jpg").touch()
    assert "is empty" in fails(tmp_path / "empty.jpg")


def test_a_folder_in_the_place_of_a_picture(tmp_path):
    assert "is a folder" in fails(tmp_path)


@pytest.mark.parametrize(
    "magic", [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\0\0\0\0WEBP", b"II*\0", b"BM"]
)
def test_bytes_after_the_magic_that_mean_nothing(tmp_path, magic):
    (tmp_path / "a.jpg").write_bytes(magic + bytes(range(256)))
    assert "damaged" in fails(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    "data, what, do",
    [
        (b"%PDF-1.7\n%\xe2\xe3\n", "a PDF", "pdftoppm"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG", "PNG"),
        (b"<!DOCTYPE html><html><body>", "a web page", "address of the picture"),
        (b"hello, world\n", "text", "JPEG, PNG"),
        ("Grüße".encode("utf-16"), "text", ""),
        (("ü" * 5000).encode()[:4097], "text", ""),  # the part looked at ends inside a character
        (b"RIFF\x24\0\0\0WAVEfmt ", "audio", ""),
        (b"ID3\x04\0\0", "audio", ""),
        (b"\xff\xfb\x90\x64" + b"\0" * 50, "audio", ""),
        (b"fLaC\0\0\0\x22", "audio", ""),
        (b"OggS\0\x02", "audio", ""),
        (b"\0\0\0\x1cftypM4A \0\0\0\0M4A mp42isom\0\0\0\0", "audio", ""),
        (b"\0\0\0\x18ftypmp42\0\0\0\0isommp42", "a video", "ffmpeg"),
        (b"\x1aE\xdf\xa3" + b"\0" * 20, "a video", "ffmpeg"),
        (b"PK\x03\x04" + b"\0" * 30, "ZIP", ""),
        (b"8BPS\0\x01", "Photoshop", "Export"),
        (b"\xff\x0a" + b"\xfa" * 20, "JPEG XL", "djxl"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS", "git lfs pull"),
        (bytes([0, 7, 200]) * 20, "not a picture of a known kind", "JPEG, PNG"),
    ],
)
def test_what_is_no_picture_is_named(tmp_path, data, what, do):
    (tmp_path / "thing.jpg").write_bytes(data)
    message = fails(tmp_path / "thing.jpg")
    assert f"thing.jpg is {what}" in message or what in message
    assert do in message


def test_a_name_with_a_newline_stays_on_one_line(tmp_path):
    (tmp_path / "two\nlines.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"two\\nlines\.png is text"):
        load(tmp_path / "two\nlines.png")


# -- stderr, and what is imported --------------------------------------------------------------------------------


def _in_python(code: str, folder: Path) -> subprocess.CompletedProcess:
    """`code` in a Python of its own, where no test runner stands between warnings and stderr."""
    prelude = (
        "from pathlib import Path, PurePosixPath\n"
        "def load(name):\n"
        "    from mmcli.media.image import load_picture\n"
        "    from mmcli.media.sources import Source\n"
        "    return load_picture(Source(name, Path(name), None, PurePosixPath(name)))\n"
    )
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "PYTHONWARNINGS": "always"}
    return subprocess.run(
        [sys.executable, "-c", prelude + code], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )


def test_pillows_warnings_stay_out_of_stderr(tmp_path):
    scene().save(tmp_path / "exif.jpg", exif=b"Exif\0\0MM\0*\0\0\xff\xff")
    _see_through("RGBA").quantize(4).save(tmp_path / "palette.png")
    made = tiff(RAMP, bits=16, sample_format=1)
    (tmp_path / "samples.tif").write_bytes(
        made.replace(struct.pack("<HHIHH", 277, 3, 1, 1, 0), b"\x15\1\3\0\1\0\0\0\7\0\0\0")
    )
    code = (
        "from mmcli.errors import InputError\n"
        "for name in ('exif.jpg', 'palette.png', 'samples.tif'):\n"
        "    try: load(name)\n"
        "    except InputError as error: print(error)"
    )
    ran = _in_python(code, tmp_path)
    assert ran.stderr == ""
    assert "samples.tif" in ran.stdout


def test_what_naming_inputs_imports(tmp_path):
    heavy = ("PIL", "torch", "numpy", "urllib.request")
    code = f"import sys, mmcli.media.sources; print([n for n in {heavy} if n in sys.modules])"
    assert _in_python(code, tmp_path).stdout.strip() == "[]"


def test_loading_a_picture_imports_neither_torch_nor_all_of_pillow(tmp_path):
    scene().save(tmp_path / "a.png")
    code = "import sys; load('a.png'); print([n for n in ('torch', 'numpy', 'PIL.PsdImagePlugin') if n in sys.modules])"
    assert _in_python(code, tmp_path).stdout.strip() == "[]"
