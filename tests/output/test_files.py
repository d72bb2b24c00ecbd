"""Where outputs go, and that they are whole."""

import os
from pathlib import Path, PurePosixPath

import pytest
from PIL import Image

from mmcli.errors import InputError, UsageError, WriteError
from mmcli.media.sources import Source
from mmcli.output.files import IMAGE_SUFFIXES, LOSSLESS_SUFFIXES, Destination, encoded
from mmcli.output.ledger import Ledger


def source(name):
    return Source(name=name, path=Path(name), url=None, relative=PurePosixPath(name))


@pytest.mark.parametrize("suffix", ["png", "jpg", "JPEG", "webp"])
def test_the_suffix_chooses_the_format(tmp_path, suffix):
    path = tmp_path / f"out.{suffix}"
    path.write_bytes(encoded(Image.new("RGB", (8, 8), "red"), path))
    with Image.open(path) as image:
        assert image.format == {"jpg": "JPEG", "jpeg": "JPEG"}.get(suffix.lower(), suffix.upper())


def test_an_image_too_large_for_the_format_is_told(tmp_path):
    with pytest.raises(InputError, match="cannot be written as WEBP"):
        encoded(Image.new("RGB", (20_000, 1)), tmp_path / "out.webp")


@pytest.mark.parametrize(
    ("argument", "many", "expected"),
    [
        ("out.png", False, "out.png"),
        ("out.JPG", False, "out.JPG"),
        ("boxes/", False, "boxes/a.png"),  # a slash makes a folder, in which a single file lies flat
        ("boxes", False, "boxes/a.png"),  # so does a name without a suffix
        ("boxes", True, "boxes/photos/a.png"),
        ("boxes.v2/", True, "boxes.v2/photos/a.png"),
    ],
)
def test_one_path_or_a_mirrored_folder(argument, many, expected):
    assert Destination("--overlay", argument, many).path(source("photos/a.jpg")) == Path(expected)


def test_a_folder_that_exists_is_a_folder_whatever_its_name(tmp_path):
    (tmp_path / "my.png").mkdir()
    found = Destination("--overlay", str(tmp_path / "my.png"), False).path(source("a.jpg"))
    assert found == tmp_path / "my.png" / "a.png"


def test_two_sources_never_share_a_file():
    destination = Destination("--mask", "masks/", True)
    names = ["a.jpg", "a.png", "a.webp", "b/a.jpg", "a.jpg"]
    paths = [str(destination.path(source(name))) for name in names]
    assert paths == ["masks/a.png", "masks/a.png.png", "masks/a.webp.png", "masks/b/a.png", "masks/a.png"]


def test_sources_with_one_relative_place_are_numbered():
    destination = Destination("--mask", "masks/", True)
    sources = [Source(name=f"http://h{n}/a.jpg", path=None, url="", relative=PurePosixPath("a.jpg")) for n in range(4)]
    assert [destination.path(one).name for one in sources] == ["a.png", "a.jpg.png", "a.jpg-2.png", "a.jpg-3.png"]


@pytest.mark.parametrize(
    ("argument", "many", "suffixes", "sentence"),
    [
        ("out.png", True, None, "names one file, but there are several"),
        ("out.gif", False, None, "no suffix that can be written.*Use .png, .jpg"),
        ("out.jpg", False, LOSSLESS_SUFFIXES, "no suffix that can be written.*Use .png"),
    ],
)
def test_a_path_that_cannot_serve_is_a_usage_error(argument, many, suffixes, sentence):
    with pytest.raises(UsageError, match=sentence):
        Destination("--overlay", argument, many, **({"suffixes": suffixes} if suffixes else {}))


# -- what is written over, and what is not -----------------------------------------------------------------------


def sources_in(folder, *names):
    """Files that hold their own names."""
    made = []
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
        made.append(Source(name=name, path=folder / name, url=None, relative=PurePosixPath(name)))
    return made


def contents(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def keeps_attributes(folder):
    """Whether the file system can note something beside a file."""
    (folder / "probe").write_bytes(b"")
    try:
        os.setxattr(folder / "probe", "user.probe", b"1")
    except (AttributeError, OSError):
        return False
    return True


def other_name(kind, folder, image):
    """Another name for an image, where a result would go."""
    place = folder / "out.png"
    if kind == "itself":
        return image
    if kind == "link":
        place.symlink_to(image)
    elif kind == "hard link":
        os.link(image, place)
    elif kind == "through a folder's link":
        (folder / "way").symlink_to(image.parent)
        place = folder / "way" / image.name
    return place


@pytest.mark.parametrize("kind", ["itself", "link", "hard link", "through a folder's link"])
@pytest.mark.parametrize("which", [0, 1])
def test_a_named_file_is_never_an_input_of_the_run_by_whatever_name(tmp_path, kind, which):
    images = sources_in(tmp_path, "a.png", "b.png")
    place = other_name(kind, tmp_path, images[which].path)
    with pytest.raises(UsageError, match="would write over .*which is read in this run"):
        Destination("--overlay", str(place), False, ledger=Ledger(images))
    assert {name: text for name, text in contents(tmp_path).items() if name in "a.png b.png"} == {
        "a.png": "a.png", "b.png": "b.png"
    }  # fmt: skip


def test_a_list_of_names_is_an_input_too(tmp_path):
    (tmp_path / "list.txt").write_text("a.png")
    with pytest.raises(UsageError, match="list.txt"):
        Destination(
            "--output", str(tmp_path / "list.txt"), True, {".txt": ""}, joins=True,
            ledger=Ledger([], [tmp_path / "list.txt"]),
        )  # fmt: skip


@pytest.mark.parametrize("kept", [(), tuple(IMAGE_SUFFIXES)])
def test_no_input_is_written_over_in_a_folder_and_the_others_go_on(tmp_path, kept):
    images = sources_in(tmp_path, "x.jpg", "x.png", "y.bmp", "z.gif")
    os.link(tmp_path / "x.png", tmp_path / "z.png")  # where the result for z.gif would go
    destination = Destination("--overlay", str(tmp_path), True, kept=kept, ledger=Ledger(images))
    failed = []
    for one in images:
        try:
            destination.write(one, b"drawn")
        except InputError as error:
            assert "which is read in this run" in str(error)
            failed.append(one.name)
    assert failed == (["x.jpg", "x.png", "z.gif"] if kept else ["x.jpg", "z.gif"])
    left = contents(tmp_path)
    assert left.pop("y.png") == "drawn" and left.pop("x.png.png", "drawn") == "drawn"
    assert left == {name: name for name in ("x.jpg", "x.png", "y.bmp", "z.gif")} | {"z.png": "x.png"}


def test_an_input_that_is_not_there_yet_is_not_made_by_the_run(tmp_path):
    [there] = sources_in(tmp_path, "x.jpg")
    later = Source(name="x.png", path=tmp_path / "x.png", url=None, relative=PurePosixPath("x.png"))
    destination = Destination("--mask", str(tmp_path), True, ledger=Ledger([there, later]))
    with pytest.raises(InputError, match="which is read in this run"):
        destination.write(there, b"mask")


def test_standard_input_that_is_a_file_is_an_input(tmp_path):
    path = tmp_path / "a.png"
    path.write_text("picture")
    with path.open("rb") as stream:
        piped = Source(name="-", path=None, url=None, relative=PurePosixPath("stdin"), stream=stream)
        with pytest.raises(UsageError, match="standard input"):
            Destination("--overlay", str(path), False, ledger=Ledger([piped]))


def test_what_the_run_did_not_write_stays_and_what_mmcli_wrote_is_renewed(tmp_path):
    out = tmp_path / "out"
    images = sources_in(tmp_path, *(f"{letter}.jpg" for letter in "abcd"))

    def run(data, **more):
        destination, failed = Destination("--mask", str(out), True, ledger=Ledger(images), **more), []
        for one in images:
            try:
                destination.write(one, data)
            except InputError as error:
                assert "exists already" in str(error) and "--overwrite" in str(error)
                failed.append(one.name)
        return failed

    out.mkdir()
    (out / "a.png").write_text("mine")
    assert run(b"first") == ["a.jpg"]
    if not keeps_attributes(tmp_path):
        pytest.skip("the file system keeps no attributes, so a result cannot be told from other files")
    assert run(b"second") == ["a.jpg"]  # a run again renews its own
    (out / "c.png").write_text("second, and a word by hand")
    assert run(b"third") == ["a.jpg", "c.jpg"]
    assert contents(out) == {
        "a.png": "mine", "b.png": "third", "c.png": "second, and a word by hand", "d.png": "third"
    }  # fmt: skip
    assert run(b"fourth", overwrite=True) == [] and set(contents(out).values()) == {"fourth"}


def test_what_is_there_already_just_so_is_no_trouble(tmp_path):
    [image] = sources_in(tmp_path, "a.jpg")
    (tmp_path / "a.png").write_text("the same")
    Destination("--mask", str(tmp_path), True, ledger=Ledger([image])).write(image, b"the same")


def test_two_options_never_share_a_file(tmp_path):
    jpg, png = sources_in(tmp_path, "in/x.jpg", "in/x.png")
    ledger, out = Ledger([jpg, png]), str(tmp_path / "out")
    overlay = Destination("--overlay", out, True, kept=tuple(IMAGE_SUFFIXES), ledger=ledger)
    mask = Destination("--mask", out, True, ledger=ledger)
    for one in (jpg, png):
        mask.write(one, f"mask of {one.name}".encode())
        overlay.write(one, f"overlay of {one.name}".encode())
    assert sorted(contents(tmp_path / "out").values()) == sorted(
        f"{what} of {name}" for what in ("mask", "overlay") for name in ("in/x.jpg", "in/x.png")
    )
    named = str(tmp_path / "one.png")
    Destination("--overlay", named, False, ledger=ledger)
    with pytest.raises(UsageError, match="where other results go"):
        Destination("--mask", named, False, ledger=ledger)


def test_names_that_a_file_system_takes_for_one_do_not_share_a_file(tmp_path):
    """As on a disk that does not tell A from a; here two names of one file stand for that."""
    first, second = sources_in(tmp_path, "in/A.jpg", "in/a.jpg")
    destination = Destination("--mask", str(tmp_path / "out"), True, ledger=Ledger([first, second]))
    destination.write(first, b"first")
    os.link(tmp_path / "out/in/A.png", tmp_path / "out/in/a.png")
    destination.write(second, b"second")
    assert contents(tmp_path / "out") == {
        "in/A.png": "first", "in/a.png": "first", "in/a.jpg.png": "second"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.jpg", "a.jpg"), ("a.JPEG", "a.JPEG"), ("a.webp", "a.webp"), ("a.png", "a.png"), ("a.heic", "a.png")],
)
def test_an_overlay_keeps_the_images_suffix_where_it_can_be_written(name, expected):
    destination = Destination("--overlay", "out/", True, kept=tuple(IMAGE_SUFFIXES))
    assert destination.path(source(f"sub/{name}")) == Path("out/sub") / expected


def test_a_place_that_cannot_be_written_is_said_before_any_work(tmp_path):
    unwritable = "/proc/nothing.png"  # not even by root
    with pytest.raises(WriteError, match="may not be written to|cannot be written"):
        destination = Destination("--overlay", unwritable, False)
        destination.write(source("a.jpg"), b"x")
