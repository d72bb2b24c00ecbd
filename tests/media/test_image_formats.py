"""Images in the formats people have, turned as they should be, one frame of them."""

import io
import os
import struct
from pathlib import PurePosixPath

import pytest
from image_files import assert_like, fails, in_python, load, scene, with_orientation
from PIL import Image, ImageOps

from mmcli.media.gif import frames
from mmcli.media.image import load_image
from mmcli.media.sources import Source

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
    image = load(path)
    assert (image.width, image.height) == (48, 32)
    assert image.notes == ()
    assert_like(image.image, scene())


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
        image = load_image(Source("-", None, None, PurePosixPath("stdin"), stream=stream))
    assert_like(image.image, scene(), 0)


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
    """Its decoder turns the image itself; the EXIF that stays in the file must not turn it again."""
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    exif = Image.Exif()
    exif[0x0112] = orientation
    scene(64, 48).save(tmp_path / "a.heic", exif=exif.tobytes(), quality=95)
    upright = ImageOps.exif_transpose(with_orientation(scene(64, 48), orientation))
    image = load(tmp_path / "a.heic")
    assert (image.width, image.height) == upright.size
    assert_like(image.image, upright)


def test_heic_without_its_extra_names_the_command(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(struct.pack(">I", 24) + b"ftypheic" + b"\0\0\0\0mif1heic" + b"\0" * 64)
    message = in_python(
        "import sys; sys.modules['pillow_heif'] = None\n"
        "from mmcli.errors import InputError\n"
        "try: load('photo.jpg')\n"
        "except InputError as error: print(error)",
        tmp_path,
    ).stdout
    assert "photo.jpg is a HEIC picture" in message
    assert "pip install 'mmcli[heic]'" in message


# -- orientation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_turns_the_image_upright_and_reports_that_size(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned{suffix}"
    scene().save(path, exif=exif, **({"quality": 95} if suffix in (".jpg", ".webp", ".avif") else {}))
    upright = ImageOps.exif_transpose(with_orientation(scene(), orientation))
    image = load(path)
    assert (image.width, image.height) == upright.size == ((48, 32) if orientation < 5 else (32, 48))
    assert_like(image.image, upright)


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0" + b"\xff" * 40,  # no TIFF header in it
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x63\0\0\0\0\0\0",  # orientation 99
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x03up\0\0\0\0\0\0",  # orientation "up"
        b"Exif\0\0MM\0*\0\0\xff\xff",  # leads beyond its end
    ],
)
def test_broken_exif_takes_nothing_from_the_image(tmp_path, exif):
    scene().save(tmp_path / "a.jpg", exif=exif, quality=95)
    image = load(tmp_path / "a.jpg")
    assert (image.width, image.height) == (48, 32)
    assert_like(image.image, scene())


# -- frames ------------------------------------------------------------------------------------------------------


def _animation(path, **options):
    colours = ["red", "lime", "blue"]
    first, *others = [Image.new("RGB", (20, 10), colour) for colour in colours]
    first.save(path, save_all=True, append_images=others, **options)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".tif", ".avif"])
def test_of_several_frames_the_first_is_used_and_said(tmp_path, suffix):
    path = tmp_path / f"moving{suffix}"
    _animation(path)
    image = load(path)
    assert image.notes == ("the first of 3 frames is used",)
    assert_like(image.image, Image.new("RGB", (20, 10), "red"))


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".tif"])
def test_another_frame_can_be_chosen(tmp_path, suffix):
    path = tmp_path / f"moving{suffix}"
    _animation(path)
    image = load(path, frame=2)
    assert image.notes == ("frame 2 of 3 is used (counted from 0)",)
    assert_like(image.image, Image.new("RGB", (20, 10), "blue"))


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
    image = load(tmp_path / "phone.jpg")
    assert image.notes == ()
    assert_like(image.image, scene())


def _gif(*frames: bytes, size=(12, 12)) -> bytes:
    """A GIF of frames as `_frame` makes them, with red as the first colour and its background."""
    return b"GIF89a" + struct.pack("<HHBBB", *size, 0x80, 0, 0) + b"\xc8\0\0\0\0\xc8" + b"".join(frames) + b";"


def _frame(left=0, top=0, palette=b"") -> bytes:
    """Four by four pixels of the second colour, perhaps of a palette of the frame's own."""
    buffer = io.BytesIO()
    Image.new("P", (4, 4), 1).save(buffer, "GIF", optimize=False)
    data = buffer.getvalue()
    pixels = data[data.rindex(b"\0\4\0\4\0") + 6 : -1]
    return struct.pack("<BHHHHB", 0x2C, left, top, 4, 4, 0x80 if palette else 0) + palette + pixels


def test_around_a_small_first_frame_there_is_nothing(tmp_path):
    """Pillow paints it in the background colour, which no viewer does."""
    (tmp_path / "a.gif").write_bytes(_gif(_frame(4, 4)))
    image = load(tmp_path / "a.gif").image
    assert image.getpixel((5, 5)) == (0, 0, 200)
    assert image.getpixel((0, 0)) == image.getpixel((11, 11)) == (255, 255, 255)


def test_a_frames_own_palette(tmp_path):
    (tmp_path / "a.gif").write_bytes(_gif(_frame(palette=b"\0\0\0\0\xc8\0"), size=(4, 4)))
    assert load(tmp_path / "a.gif").image.getpixel((1, 1)) == (0, 200, 0)


def test_of_very_many_frames_not_all_are_counted(tmp_path):
    (tmp_path / "a.gif").write_bytes(_gif(*[_frame()] * 3000))
    with open(tmp_path / "a.gif", "rb") as file:
        assert frames(file) == (1001, (0, 0, 4, 4))
    assert load(tmp_path / "a.gif").notes == ("the first of more than 1,000 frames is used",)
    assert load(tmp_path / "a.gif", frame=2).notes == ("frame 2 of more than 1,000 is used (counted from 0)",)
