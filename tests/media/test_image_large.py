"""Large pictures, and what opening one costs: no more pixels, modules or words than needed."""

import struct

import pytest
from picture_files import RAMP, assert_like, fails, in_python, load, png, scene, see_through, tiff
from PIL import Image

from mmcli.media.image import PIXEL_LIMIT

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
    message = in_python("picture = load('large.png'); print(picture.width, picture.height)", tmp_path)
    assert message.stdout.split() == ["20000", "10000"]
    assert message.stderr == ""


# -- stderr, and what is imported --------------------------------------------------------------------------------


def test_pillows_warnings_stay_out_of_stderr(tmp_path):
    scene().save(tmp_path / "exif.jpg", exif=b"Exif\0\0MM\0*\0\0\xff\xff")
    see_through("RGBA").quantize(4).save(tmp_path / "palette.png")
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
    ran = in_python(code, tmp_path)
    assert ran.stderr == ""
    assert "samples.tif" in ran.stdout


def test_what_naming_inputs_imports(tmp_path):
    heavy = ("PIL", "torch", "numpy", "urllib.request")
    code = f"import sys, mmcli.media.sources; print([n for n in {heavy} if n in sys.modules])"
    assert in_python(code, tmp_path).stdout.strip() == "[]"


def test_loading_a_picture_imports_neither_torch_nor_all_of_pillow(tmp_path):
    scene().save(tmp_path / "a.png")
    code = "import sys; load('a.png'); print([n for n in ('torch', 'numpy', 'PIL.PsdImagePlugin') if n in sys.modules])"
    assert in_python(code, tmp_path).stdout.strip() == "[]"
