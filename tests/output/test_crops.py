"""Objects as images of their own, and objects that are hidden."""

import numpy as np
import pytest
from PIL import Image

from mmcli.output.crops import crops, file_label
from mmcli.output.redaction import redact
from mmcli.output.schema import Object, Record
from mmcli.rle import encode

SIZE = 120, 90


@pytest.fixture
def image() -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    return Image.fromarray(noise)


def record(*objects) -> Record:
    return Record(task="segment", source="a", model="nano", width=SIZE[0], height=SIZE[1], objects=objects)


def thing(label, box, mask=None) -> Object:
    return Object(label=label, box=box, raw_box=(), mask=mask)


def disc() -> np.ndarray:
    rows, columns = np.ogrid[: SIZE[1], : SIZE[0]]
    return (rows - 45) ** 2 + (columns - 60) ** 2 < 400


def test_a_crop_is_the_part_in_the_box(image):
    found = record(thing("cat", (10, 20, 30.4, 50)), thing("../Dog 犬", (-5, 80, 500, 500)))
    [(first, cat), (second, dog)] = crops(image, found)
    assert (first, cat.size) == ("1-cat", (20, 30)) and (second, dog.size) == ("2-dog-犬", (120, 10))
    assert np.array_equal(np.asarray(cat), np.asarray(image)[20:50, 10:30])


def test_a_cut_out_is_transparent_where_the_object_is_not(image):
    mask = encode(disc())
    found = record(thing("box alone", (0, 0, 9, 9)), thing("cat", (30, 15, 90, 75), mask))
    [(name, cut)] = crops(image, found, cut_out=True)
    assert name == "2-cat" and cut.mode == "RGBA"
    assert np.array_equal(np.asarray(cut)[..., 3] > 0, disc()[15:75, 30:90])
    empty = encode(np.zeros(SIZE[::-1], bool))
    assert list(crops(image, record(thing("cat", (0, 0, 9, 9), empty)), cut_out=True)) == []


@pytest.mark.parametrize("label", ["", "..", "/", "\x00\x1b", "a" * 300, "\udce9", "CON / aux"])
def test_a_label_cannot_leave_its_file_name(label):
    name = file_label(label)
    assert name and len(name.encode()) <= 60 and not set(name) & set("/\\.\x00\x1b:")


@pytest.mark.parametrize("way", ["blur", "pixelate"])
def test_what_is_named_is_hidden_and_nothing_else(image, way):
    before = np.asarray(image).copy()
    face = thing("Face", (20, 20, 60, 60))
    hidden = np.asarray(redact(image, record(face, thing("cat", (80, 0, 110, 20))), **{way: ["face "]}))
    assert np.array_equal(np.asarray(image), before)  # the one that was given is as it was
    changed = (hidden != before).any(axis=2)
    assert changed[20:60, 20:60].mean() > 0.98
    changed[18:62, 18:62] = False
    assert not changed.any()
    # Of noise in whole pixels nothing is left: neighbours are alike.
    inside = hidden[22:58, 22:58].astype(float)
    assert np.abs(np.diff(inside, axis=0)).mean() < 6


def test_a_mask_is_hidden_with_what_is_around_it(image):
    before = np.asarray(image)
    hidden = np.asarray(redact(image, record(thing("cat", (40, 25, 80, 65), encode(disc()))), pixelate=["*"]))
    changed = (hidden != before).any(axis=2)
    assert changed[disc()].mean() > 0.98 and not changed[:20].any() and not changed[24:27, 39:42].any()


def test_an_object_with_an_empty_mask_is_hidden_by_its_box(image):
    empty = encode(np.zeros(SIZE[::-1], bool))
    hidden = redact(image, record(thing("cat", (20, 20, 60, 60), empty)), blur=["cat"])
    assert (np.asarray(hidden) != np.asarray(image)).any(axis=2)[20:60, 20:60].mean() > 0.98


def test_a_thin_object_is_hidden_too(image):
    hidden = redact(image, record(thing("wire", (50, 0, 50.2, 90))), blur=["wire"])
    assert (np.asarray(hidden) != np.asarray(image)).any(axis=2).sum() >= 60


def test_where_nothing_is_named_the_image_stays(image):
    assert redact(image, record(thing("cat", (0, 0, 9, 9))), blur=["dog"]) is image
