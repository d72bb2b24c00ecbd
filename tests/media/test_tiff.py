"""TIFFs of every layout: right colours, or a refusal that says why; never a preview for the image."""

import itertools

import numpy as np
import pytest
from image_files import fails, load, scene
from tiff_files import page, tiff_file

RGB = np.asarray(scene(48, 32)).copy()
RGB[10:20, 10:20] = (200, 120, 40)
GREY = RGB.mean(2).astype(np.uint8)
RAMP = (np.arange(32 * 48).reshape(32, 48) % 256).astype(np.uint8)
CLEAR = np.full(GREY.shape, 255, np.uint8)  # transparent on the left
CLEAR[:, :10] = 0
WHITE_LEFT = RGB.copy()
WHITE_LEFT[:, :10] = 255


def grey(values):
    return np.repeat(values[..., None], 3, 2)


def deep(values, bits):
    return values if bits == 8 else values.astype(np.uint16) * np.uint16(257)


def assert_shows(path, data, expected, tolerance=2):
    path.write_bytes(data)
    shown = np.asarray(load(path).image, int)
    assert shown.shape == expected.shape
    assert np.abs(shown - expected).max() <= tolerance


LAYOUTS = list(itertools.product((1, 2), (8, 16), (False, True), (None, 16), "<>"))


@pytest.mark.parametrize("planar, bits, deflate, tile, order", LAYOUTS)
def test_planes_tiles_and_depths_of_colour(tmp_path, planar, bits, deflate, tile, order):
    layout = {"planar": planar, "deflate": deflate, "tile": tile, "order": order, "predictor": 1 + deflate}
    path = tmp_path / "a.tif"
    four, premultiplied = np.dstack([RGB, CLEAR]), np.dstack([RGB * (CLEAR[..., None] > 0), CLEAR])
    cmyk = np.asarray(scene().convert("CMYK"))
    for samples, tags, expected in (
        (RGB, {}, RGB),
        (four, {"t338": [2]}, WHITE_LEFT),
        (premultiplied, {"t338": [1]}, WHITE_LEFT),
        (four, {"t338": [0]}, RGB),
        (cmyk, {"photometric": 5}, np.asarray(scene())),
    ):
        made = tiff_file(page(deep(samples, bits), **layout, **tags), order=order)
        assert_shows(path, made, expected, tolerance=4)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("deflate", [False, True])
def test_signed_and_float_greys_of_either_byte_order(tmp_path, order, deflate):
    """libtiff gives them in the machine's order, whichever the file has."""
    signed = RAMP.astype(np.int16) * 100 - 10000
    for samples in (RAMP / np.float32(255), signed, signed.astype(np.int32)):
        made = tiff_file(page(samples, order=order, deflate=deflate), order=order)
        assert_shows(tmp_path / "a.tif", made, grey(RAMP))


def test_bigtiff(tmp_path):
    assert_shows(tmp_path / "a.tif", tiff_file(page(RGB, rows=8), big=True), RGB, 0)


def test_a_colour_map_written_as_bytes(tmp_path):
    """Its values should be of 16 bits; scaled down from there they would all be black."""
    colours = [*range(256), *range(255, -1, -1), *[0] * 256]
    made = tiff_file(page(RAMP, photometric=3, t320=colours))
    assert_shows(tmp_path / "a.tif", made, np.dstack([RAMP, 255 - RAMP, 0 * RAMP]), 0)


@pytest.mark.parametrize(
    "made, why",
    [
        (page((RAMP - 128).astype(np.int8)), "signed 8-bit samples"),
        (page(np.dstack([GREY, CLEAR]), photometric=1, planar=2, t338=[2]), "transparency in separate planes"),
        (page(RGB, t339=[1, 1, 2]), "samples of several types"),
        (page(RGB / np.float32(255)), "colours of 32 bits a sample"),
        (page(RGB.astype(np.uint32)), "colours of 32 bits a sample"),
        (page(deep(np.dstack([GREY, CLEAR]), 16), photometric=1, t338=[2]), "grey and transparency of 16 bits"),
        (page(GREY.astype(np.float64)), "64 bits a sample"),
        (page(RGB, photometric=9), "ICC Lab colours"),
        (page(RGB, t259=[50002]), "compression 50002"),
    ],
)
def test_what_would_be_read_wrongly_is_refused(tmp_path, made, why):
    (tmp_path / "a.tif").write_bytes(tiff_file(made))
    assert why in fails(tmp_path / "a.tif")


# -- pages -------------------------------------------------------------------------------------------------------


def test_a_reduced_page_before_the_image_is_passed_over(tmp_path):
    small = page(RGB[::4, ::4], t254=[1])
    path = tmp_path / "a.tif"
    path.write_bytes(tiff_file(small, page(RGB), page(RGB[::-1])))
    image = load(path)
    assert np.array_equal(np.asarray(image.image), RGB)
    assert any("page 1 is used" in note for note in image.notes)
    assert any("first of 2 frames" in note for note in image.notes)
    assert np.array_equal(np.asarray(load(path, frame=1).image), RGB[::-1])


@pytest.mark.parametrize("tag", [{"t254": [1]}, {"t254": [4]}, {"t255": [2]}])
def test_reduced_copies_and_masks_behind_the_image_are_no_frames(tmp_path, tag):
    (tmp_path / "a.tif").write_bytes(tiff_file(page(RGB), page(RGB[::2, ::2], **tag)))
    image = load(tmp_path / "a.tif")
    assert image.image.size == (48, 32) and image.notes == ()


def test_a_page_that_calls_itself_reduced_where_there_is_no_other(tmp_path):
    assert_shows(tmp_path / "a.tif", tiff_file(page(RGB, t254=[1])), RGB, 0)


def test_only_reduced_pages_are_no_image(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff_file(page(RGB, t254=[1]), sub={0: [page(RGB)]}))
    assert "reduced copies" in fails(tmp_path / "a.tif")


@pytest.mark.parametrize(
    "data",
    [
        tiff_file(page(RGB[::4, ::4], t254=[1]), sub={0: [page(GREY, photometric=32803)]}),  # as in DNG and NEF
        tiff_file(page(RGB[::4, ::4]), page(GREY, photometric=34892)),  # linear raw, behind a page that looks whole
        tiff_file(page(RGB, t50706=[1, 4, 0, 0])),  # DNGVersion
        tiff_file(page(RGB[::4, ::4]), sub={0: [page(GREY, t259=[32767])]}),  # Sony's codec
        b"II*\0\x10\0\0\0CR\2\0" + tiff_file(page(RGB))[8:],
        b"FUJIFILMCCD-RAW 0201" + bytes(80),
        b"IIU\0" + bytes(80),  # Panasonic
        b"IIRO" + bytes(80),  # Olympus
        b"\0\0\0\x18ftypcrx \0\0\0\1crx isom",  # Canon's CR3
    ],
    ids=["sub-IFD", "linear", "DNG", "ARW", "CR2", "RAF", "RW2", "ORF", "CR3"],
)
def test_a_camera_raw_is_refused_and_its_preview_not_taken_for_it(tmp_path, data):
    (tmp_path / "a.dng").write_bytes(data)
    message = fails(tmp_path / "a.dng")
    assert "camera raw" in message and "darktable" in message


def test_of_thousands_of_pages_the_first_is_there_at_once(tmp_path, monkeypatch):
    """Pillow would read the tags of all to count them: minutes."""
    from mmcli.media import tiff

    read = []
    directory = tiff._directory
    monkeypatch.setattr(tiff, "_directory", lambda *at: read.append(at) or directory(*at))
    path = tmp_path / "a.tif"
    path.write_bytes(tiff_file(*[page(RGB[:2, :2], rows=None)] * 5000))
    image = load(path)
    assert image.notes == ("the first of more than 1,000 frames is used",)
    assert len(read) <= 1001
