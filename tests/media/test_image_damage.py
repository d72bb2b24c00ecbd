"""Damaged files and files that are no images: an error that names the file and what it is."""

import pytest
from image_files import fails, load, noise

from mmcli.errors import InputError


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
def test_a_file_cut_short_is_an_error_not_half_an_image(tmp_path, suffix, options, kept):
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


def test_a_folder_in_the_place_of_an_image(tmp_path):
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
        (b'{"schema": 2, "task": "detect"}\n', "a file of results", "mmcli segment --from-boxes outlines"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG", "PNG"),
        (b"<!DOCTYPE html><html><body>", "a web page", "address of the picture"),
        (b"hello, world\n", "text", "JPEG, PNG"),
        ("Grüße".encode("utf-16"), "text", ""),
        (("ü" * 5000).encode()[:4097], "text", ""),  # the part looked at ends inside a character
        (b"RIFF\x24\0\0\0WAVEfmt ", "audio", "mmcli transcribe"),
        (b"ID3\x04\0\0", "audio", ""),
        (b"\xff\xfb\x90\x64" + b"\0" * 50, "audio", "mmcli transcribe"),
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
def test_what_is_no_image_is_named(tmp_path, data, what, do):
    (tmp_path / "thing.jpg").write_bytes(data)
    message = fails(tmp_path / "thing.jpg")
    assert f"thing.jpg is {what}" in message or what in message
    assert do in message


def test_a_name_with_a_newline_stays_on_one_line(tmp_path):
    (tmp_path / "two\nlines.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"two\\nlines\.png is text"):
        load(tmp_path / "two\nlines.png")


@pytest.mark.parametrize("place", ["mmcli.media.image._decode", "PIL.Image.Image.getexif"])
def test_an_interruption_is_no_damage_whatever_a_library_made_of_it(monkeypatch, tmp_path, place):
    def interrupted(*arguments, **options):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise OSError("encoder error")  # noqa: B904 (it has a context, no cause)

    noise(8, 8).save(tmp_path / "x.jpg")
    monkeypatch.setattr(place, interrupted)
    with pytest.raises(KeyboardInterrupt):
        load(tmp_path / "x.jpg")
