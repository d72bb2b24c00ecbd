"""JPEGs that are not whole: read where nothing is missing, refused where something is, bounded in their scans."""

import io

import numpy as np
import pytest
from image_files import assert_like, fails, load, noise, scene
from PIL import Image


def jpeg(image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90, **options)
    return buffer.getvalue()


KINDS = [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"subsampling": 0}]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("end", [b"", b"\xff"], ids=["no marker", "half a marker"])
def test_only_the_end_marker_is_missing(tmp_path, kind, end):
    whole = jpeg(noise(200, 150), **kind)
    (tmp_path / "whole.jpg").write_bytes(whole)
    (tmp_path / "cut.jpg").write_bytes(whole[:-2] + end)
    image = load(tmp_path / "cut.jpg")
    assert np.array_equal(np.asarray(image.image), np.asarray(load(tmp_path / "whole.jpg").image))
    assert image.notes == ("its end marker is missing, but all of the picture is there",)
    assert load(tmp_path / "whole.jpg").notes == ()


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("ended", [False, True], ids=["cut short", "cut short and ended"])
@pytest.mark.parametrize("kept", [0.5, 0.9, 0.97])
def test_data_of_the_image_are_missing(tmp_path, kind, ended, kept):
    """libjpeg fills the rest with grey and says nothing."""
    if kind.get("progressive") and ended:
        pytest.skip("whether a whole picture should have had more scans cannot be told")
    whole = jpeg(noise(200, 150), **kind)
    (tmp_path / "a.jpg").write_bytes(whole[: int(len(whole) * kept)] + (b"\xff\xd9" if ended else b""))
    assert "missing" in fails(tmp_path / "a.jpg")


def test_an_image_that_ends_grey_is_no_image_cut_short(tmp_path):
    grey = scene(64, 64)
    grey.paste((128, 128, 128), (0, 32, 64, 64))
    (tmp_path / "a.jpg").write_bytes(jpeg(grey, subsampling=0))
    image = load(tmp_path / "a.jpg")
    assert image.notes == ()
    assert_like(image.image, grey)


def test_what_follows_the_end_does_not_matter(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg(scene()) + b"\xff\xd8\xff junk" * 100)
    assert load(tmp_path / "a.jpg").notes == ()


def scans(count: int) -> bytes:
    """A progressive JPEG with its last scan over and over; it has 6 without that."""
    whole = jpeg(noise(32, 32, 1), progressive=True)
    at = whole.rindex(b"\xff\xda")
    return whole[:at] + whole[at:-2] * (count - 5) + whole[-2:]


def test_scans_without_end_are_refused_before_decoding(tmp_path):
    (tmp_path / "few.jpg").write_bytes(scans(20))
    assert load(tmp_path / "few.jpg").image.size == (32, 32)
    (tmp_path / "many.jpg").write_bytes(scans(400))
    assert "over 100 scans" in fails(tmp_path / "many.jpg")


def test_scans_over_very_many_pixels_are_refused(tmp_path, monkeypatch):
    from mmcli.media import image_header

    monkeypatch.setattr(image_header, "SCANNED", 32 * 32 * 19)
    (tmp_path / "a.jpg").write_bytes(scans(20))
    assert "20 scans, too many for its size" in fails(tmp_path / "a.jpg")


@pytest.mark.parametrize("kind, name", [(0xC3, "a lossless JPEG"), (0xC5, "a hierarchical JPEG")])
def test_codings_that_are_not_read_are_named(tmp_path, kind, name):
    data = jpeg(scene())
    at = data.index(b"\xff\xc0")
    (tmp_path / "a.jpg").write_bytes(data[: at + 1] + bytes([kind]) + data[at + 2 :])
    assert name in fails(tmp_path / "a.jpg")


def test_12_bits_are_named(tmp_path):
    data = jpeg(scene())
    at = data.index(b"\xff\xc0") + 4
    (tmp_path / "a.jpg").write_bytes(data[:at] + b"\x0c" + data[at + 1 :])
    assert "12 bits a sample" in fails(tmp_path / "a.jpg")


def test_junk_without_end_after_the_beginning(tmp_path):
    """Pillow would look for a marker byte by byte, in minutes."""
    with open(tmp_path / "a.jpg", "wb") as file:
        file.write(b"\xff\xd8\xff\xe0\0\x10JFIF\0")
        file.truncate(1 << 30)
    assert "damaged" in fails(tmp_path / "a.jpg")


def test_ycck(tmp_path):
    """Adobe's transform 2: CMY as YCbCr, stored inverted."""
    ink = np.asarray(scene().convert("CMYK"))
    ycc = np.asarray(Image.fromarray(ink[..., :3]).convert("YCbCr"))
    data = bytearray(jpeg(Image.fromarray(np.dstack([255 - ycc, ink[..., 3]]), "CMYK"), subsampling=0))
    mark = data.index(b"Adobe")
    data[mark + 11] = 2
    (tmp_path / "a.jpg").write_bytes(data)
    assert_like(load(tmp_path / "a.jpg").image, scene(), 40)
