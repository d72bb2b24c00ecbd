"""Where an input's output goes under an output folder: its own tree kept, nothing outside it."""

from pathlib import PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from naming import make, only

from mmcli.media.naming import relative_place
from mmcli.media.sources import IMAGE_EXTENSIONS, expand

pytestmark = pytest.mark.usefixtures("here")


@pytest.mark.parametrize(
    "name, place",
    [
        ("a.jpg", "a.jpg"),
        ("./a.jpg", "a.jpg"),
        ("d/s/a.jpg", "d/s/a.jpg"),
        ("d/../a.jpg", "a.jpg"),
        ("d//./a.jpg", "d/a.jpg"),
        ("/data/photos/a.jpg", "data/photos/a.jpg"),  # as tar does
        ("a\\b.jpg", "a\\b.jpg"),
        (".", "unnamed"),
        ("/", "unnamed"),
    ],
)
def test_outputs_mirror_the_path_as_given(name, place):
    assert relative_place(name) == PurePosixPath(place)


def test_paths_that_leave_the_folder_and_come_back(tmp_path):
    assert relative_place(str(tmp_path / "d" / "a.jpg")) == PurePosixPath("d/a.jpg")
    assert relative_place(f"../{tmp_path.name}/a.jpg") == PurePosixPath("a.jpg")
    outside = PurePosixPath(*tmp_path.parent.parts[1:])
    assert relative_place("../other/a.jpg") == outside / "other" / "a.jpg"


def test_files_of_one_name_from_several_folders_do_not_meet():
    make("d/a.jpg", "e/a.jpg", "a.jpg")
    places = [s.relative for s in expand(["d", "e", "a.jpg", "../a.jpg", "../d/a.jpg"], extensions=IMAGE_EXTENSIONS)]
    assert len(set(places)) == 5


_pieces = st.sampled_from(["..", ".", "", "a", "b.jpg", "~", "C:", "\\", " ", "\n", "é", "\udcff", "*", "//"])
_paths = st.one_of(st.lists(_pieces, min_size=1, max_size=8).map("/".join), st.text(max_size=20))


def _stays_inside(place: PurePosixPath) -> bool:
    return not place.is_absolute() and bool(place.parts) and ".." not in place.parts


@given(_paths)
@example("../../../../../../../../../../etc/passwd")
@example("//a/b")
@example("..")
def test_an_output_never_leaves_its_folder(name):
    assert _stays_inside(relative_place(name))


@given(st.sampled_from(["http://", "HTTPS://"]), _paths)
@example("https://", "host/%2e%2e/%2E%2E/etc/passwd")
@example("https://", "host/..%2f..%2fetc")
@example("https://", "../..")
@example("http://", "?" + "q" * 500)
@example("http://", "h/" + "n" * 500 + ".jpg")
def test_nor_does_that_of_an_address(scheme, rest):
    source = only(scheme + rest)
    assert _stays_inside(source.relative)
    assert all(len(part.encode()) <= 255 and "\0" not in part for part in source.relative.parts)


def test_the_place_of_an_address():
    assert only("https://user@Example.org:8000/a/b%20c.jpg#top").relative == PurePosixPath("example.org_8000/a/b c.jpg")
    one, two = (only(f"https://example.org/get.php?id={number}").relative for number in (1, 2))
    assert one != two and one.parent == PurePosixPath("example.org")
    assert one.suffix == ".php"
