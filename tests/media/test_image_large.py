"""Large images, and what opening one costs: no more pixels, modules or words than needed."""

import io
import struct
import sys
import threading

import pytest
from image_files import RAMP, assert_like, fails, in_python, load, png, scene, see_through, tiff
from PIL import Image

from mmcli.errors import InputError
from mmcli.media import image as image_module
from mmcli.media import jpeg
from mmcli.media.budget import Budget
from mmcli.media.image import _cost
from mmcli.media.image_header import ImageHeader
from mmcli.media.limits import DECODING, FULL_PIXELS, HELD_PIXELS, WHOLE

# -- large images ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size, side, decoded", [((1600, 1200), 448, (800, 600)), ((1600, 400), 448, (1600, 400))])
def test_large_jpegs_are_decoded_smaller_but_report_their_size(tmp_path, size, side, decoded):
    """Both sides stay as long as asked, for a model that squashes the image to a square."""
    scene(*size).save(tmp_path / "a.jpg", quality=90)
    image = load(tmp_path / "a.jpg", side=side)
    assert (image.width, image.height) == size
    assert image.image.size == decoded


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_images_are_decoded_whole_as_long_as_they_can_be_held(tmp_path, monkeypatch, kind):
    path = tmp_path / f"a.{kind}"
    scene(1600, 1200).save(path, quality=90)
    assert load(path, side=WHOLE).image.size == (1600, 1200)
    monkeypatch.setattr(image_module, "HELD_PIXELS", 1600 * 1200 - 1)
    assert load(path, side=WHOLE).image.size == (800, 600)
    monkeypatch.setattr(image_module, "HELD_PIXELS", 200 * 150 - 1)
    image = load(path, side=WHOLE)
    assert (image.image.size, image.width, image.height) == ((100, 75), 1600, 1200)


def test_reduced_decoding_and_a_turn_go_together(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    scene(1602, 1201).save(tmp_path / "a.jpg", quality=90, exif=exif)
    image = load(tmp_path / "a.jpg", side=300)
    assert (image.width, image.height) == (1201, 1602)
    assert image.image.size == (301, 401)
    assert_like(image.image, scene(401, 301).transpose(Image.Transpose.ROTATE_270))


@pytest.mark.parametrize("width, height", [(50_000, 50_000), (15_000, 20_000)], ids=["bomb for Pillow", "ours alone"])
def test_too_many_pixels_are_refused_before_decoding(tmp_path, width, height):
    (tmp_path / "bomb.png").write_bytes(png(width, height, 8, 2, b""))
    message = fails(tmp_path / "bomb.png")
    assert f"{width} × {height}" in message and str(FULL_PIXELS // 10**6) in message


def test_an_image_beyond_pillows_own_limit_opens(tmp_path):
    """200 megapixels come out of phones; Pillow alone refuses from 179 on."""
    size = (20_000, 10_000)
    (tmp_path / "large.png").write_bytes(png(*size, 1, 0, (b"\0" + b"\xff" * 2500) * size[1]))
    message = in_python("picture = load('large.png', side=896); print(picture.width, picture.height)", tmp_path)
    assert message.stdout.split() == ["20000", "10000"]
    assert message.stderr == ""


# -- memory ------------------------------------------------------------------------------------------------------

MEASURED = """
from mmcli.media import image, limits
from mmcli.media.budget import Budget
from concurrent.futures import ThreadPoolExecutor
load("small.png", side=896)
before = peak()
image._decoding = Budget(170_000_000)
with ThreadPoolExecutor(4) as pool:
    pictures = list(pool.map(lambda name: load(name, side=896), ["large.png"] * 4))
print({picture.image.size for picture in pictures}, {(p.width, p.height) for p in pictures})
print(round(peak() - before))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_threads_decode_within_one_budget_and_without_second_copies(tmp_path):
    """Four images of 36 megapixels with alpha: 144 MB each as Pillow holds them, one at a time."""
    rows = (b"\0" + bytes(4 * 6000)) * 6000
    (tmp_path / "large.png").write_bytes(png(6000, 6000, 8, 6, rows))
    (tmp_path / "small.png").write_bytes(png(8, 8, 8, 6, (b"\0" + bytes(32)) * 8))
    sizes, mebibytes = in_python(MEASURED, tmp_path).stdout.splitlines()
    assert sizes == "{(1500, 1500)} {(6000, 6000)}"
    assert 100 < int(mebibytes) < 350


def test_an_image_of_any_form_is_made_small_enough_to_wait_for_a_model(tmp_path):
    (tmp_path / "a.png").write_bytes(png(200, 100_000, 1, 0, (b"\0" + bytes(25)) * 100_000))
    image = load(tmp_path / "a.png", side=896)
    assert 2_000_000 < image.image.width * image.image.height <= HELD_PIXELS
    assert (image.width, image.height) == (200, 100_000)


@pytest.mark.parametrize("kind, limit", [("WEBP", 65), ("JPEG2000", 51), ("AVIF", 85)])
def test_decoders_that_take_much_are_asked_for_less(kind, limit):
    image = Image.new("1", (1000, limit * 1000 + 10_000))
    image.format = kind
    with pytest.raises(InputError, match="GB to decode"):
        _cost(image, ImageHeader(), io.BytesIO(), image.size, "a")
    image = image.crop((0, 0, 1000, limit * 1000))
    image.format = kind
    assert _cost(image, ImageHeader(), io.BytesIO(), image.size, "a") <= DECODING


def test_a_progressive_jpeg_needs_its_coefficients_too():
    image = Image.new("1", (10_000, 13_000))
    image.format = "JPEG"
    layout = jpeg.Layout(coding=2, pixels=130_000_000, sampling=[(n, 1, 1) for n in range(3)])
    with pytest.raises(InputError, match="1.3 GB to decode"):
        _cost(image, ImageHeader(layout=layout), io.BytesIO(), image.size, "a")


@pytest.mark.parametrize("side", [None, 896])
def test_many_rows_cost_more_than_their_pixels(tmp_path, side):
    """Pillow points to every row: 250 million of one pixel would take 3 GB."""
    for rows in (100_000_000, 250_000_000):
        (tmp_path / "tall.png").write_bytes(png(1, rows, 8, 2, b""))
        assert f"1 × {rows} pixels" in fails(tmp_path / "tall.png", side=side)


def test_who_would_exceed_the_budget_waits_and_then_goes_on():
    budget, order = Budget(10), []
    waiting = threading.Thread(target=lambda: _spend(budget, 5, order))
    with budget.spend(6):
        waiting.start()
        order.append("first")
    waiting.join()
    assert order == ["first", 5]
    _spend(budget, 1000, order)  # more than the total: alone
    assert order == ["first", 5, 1000]


def _spend(budget, amount, order):
    with budget.spend(amount):
        order.append(amount)


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


def test_loading_an_image_imports_neither_torch_nor_all_of_pillow(tmp_path):
    scene().save(tmp_path / "a.png")
    code = "import sys; load('a.png'); print([n for n in ('torch', 'numpy', 'PIL.PsdImagePlugin') if n in sys.modules])"
    assert in_python(code, tmp_path).stdout.strip() == "[]"
