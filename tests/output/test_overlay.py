"""Drawn images: what must be visible, and where nothing may change."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmcli import rle
from mmcli.output.overlay import PALETTE, draw, label_colours
from mmcli.output.schema import Object, Record
from mmcli.output.tags import Tag, ink_on, place


def found(label, box, mask=None):
    return Object(label, tuple(box), (0, 0, 1, 1), -0.1, mask=None if mask is None else rle.encode(mask))


def record(*objects):
    return Record(task="detect", source="a.png", model="nano", objects=objects)


def drawn(objects, background="white", size=(320, 240)):
    return np.asarray(draw(Image.new("RGB", size, background), record(*objects)))


def test_without_objects_the_image_is_the_same():
    assert (drawn([], "red") == (255, 0, 0)).all()


def test_no_second_image_is_made():
    """Of 120 million pixels there is room for one beside the model."""
    image = Image.new("RGB", (64, 64))
    assert draw(image, record(found("cat", (5, 5, 60, 60)))) is image
    assert image.getbbox()


@pytest.mark.parametrize("background", ["black", "white", "grey", PALETTE[0], PALETTE[5]])
def test_a_box_stands_out_on_any_background(background):
    colour = label_colours(["cat"])["cat"]
    for ground in background, colour:
        image = drawn([found("cat", (100, 60, 200, 180))], ground).astype(int)
        profile = image[120, 90:110]  # across the left line
        assert np.abs(profile - image[120, 150]).sum(1).max() > 90


@pytest.mark.parametrize(("size", "width"), [((320, 240), 2), ((1400, 1400), 5), ((4000, 3920), 14)])
def test_lines_are_as_wide_as_suits_the_image(size, width):
    """About the 280th part of its side, so that they look alike wherever the image is shown."""
    image = drawn([found("", (0.3 * size[0], 0.3 * size[1], 0.7 * size[0], 0.7 * size[1]))], size=size)
    profile = image[size[1] // 2, : size[0] // 2]  # across the left line
    assert (profile == label_colours([""])[""]).all(1).sum() == pytest.approx(width, abs=1)


def test_a_box_does_not_colour_its_inside():
    image = drawn([found("", (100, 60, 200, 180))])
    assert (image[70:170, 110:190] == 255).all() and (image[:50] == 255).all()


def test_a_mask_tints_its_inside_and_softens_its_edge():
    mask = np.zeros((240, 320), bool)
    mask[60:180, 100:200] = True
    image = drawn([found("", (100, 60, 200, 180), mask)], "black")
    colour = np.array(label_colours([""])[""])
    assert np.abs(image[120, 150] - 0.38 * colour).max() < 6
    assert (image[20, 20] == 0).all()


@pytest.mark.parametrize(
    "box",
    [(0, 0, 320, 240), (0, 0, 1, 1), (319, 239, 320, 240), (100, 0, 100.3, 240), (310, 0, 320, 5)],
)
@pytest.mark.parametrize(
    "label", ["cat", "a label far longer than the picture is wide, and then some more words", "猫"]
)
def test_boxes_at_the_edges_and_long_labels_are_drawn(box, label):
    assert (drawn([found(label, box)], "black") > 0).any()


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (16, 16)])
def test_the_smallest_images_are_drawn_on(size):
    mask = np.ones(size[::-1], bool)
    assert drawn([found("cat", (0, 0, *size), mask)], size=size).shape == (size[1], size[0], 3)


def test_an_empty_mask_draws_nothing_but_the_box():
    empty = found("", (100, 60, 200, 180), np.zeros((240, 320), bool))
    assert (drawn([empty])[70:170, 110:190] == 255).all()


# Colours.


def test_a_label_has_its_colour_in_every_image():
    assert label_colours(["cat"])["cat"] == label_colours(["cat", "dog", "cat"])["cat"]


@given(st.lists(st.text(max_size=5), unique=True, max_size=len(PALETTE)))
def test_labels_of_one_image_have_different_colours(labels):
    colours = label_colours(labels)
    assert set(colours) == set(labels) and len(set(colours.values())) == len(labels)


def test_more_labels_than_colours_share_them():
    colours = label_colours([f"thing {i}" for i in range(100)])
    assert len(colours) == 100 and set(colours.values()) == set(PALETTE)


@pytest.mark.parametrize("colour", PALETTE)
def test_text_on_a_tag_is_readable(colour):
    def luminance(rgb):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in rgb)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(colour), luminance(ink_on(colour))), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5  # WCAG 2.2, level AA


# Places of tags.

boxes = st.builds(
    lambda x, y, w, h: (x, y, min(x + w, 639), min(y + h, 479)),
    st.integers(0, 620), st.integers(0, 460), st.integers(1, 640), st.integers(1, 480),
)  # fmt: skip


@given(st.lists(boxes, max_size=10))
@settings(max_examples=50, deadline=None)
def test_tags_stay_inside_the_image(given_boxes):
    tags = [(Tag("label", PALETTE[0], 14, 640), box) for box in given_boxes]
    for (tag, _), (x, y) in zip(tags, place(tags, (640, 480), 3), strict=True):
        assert 0 <= x <= 640 - tag.size[0] and 0 <= y <= 480 - tag.size[1]


def rectangles(tags, corners):
    return [(x, y, x + tag.size[0], y + tag.size[1]) for (tag, _), (x, y) in zip(tags, corners, strict=True)]


def test_tags_of_one_place_do_not_cover_each_other():
    tags = [(Tag(name, PALETTE[0], 14, 640), (200, 200, 400, 350)) for name in ("cat", "animal", "pet", "kitten")]
    placed = rectangles(tags, place(tags, (640, 480), 3))
    for i, a in enumerate(placed):
        for b in placed[:i]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_a_tag_sits_on_top_of_its_box_where_there_is_room():
    tag = Tag("cat", PALETTE[0], 14, 640)
    [(x, y)] = place([(tag, (200, 200, 400, 350))], (640, 480), 3)
    assert (x, y + tag.size[1]) == (199, 199)


def test_a_label_longer_than_the_image_ends_in_an_ellipsis_and_fits():
    assert Tag("word " * 100, PALETTE[0], 14, 300).size[0] <= 300


def test_a_quad_is_drawn_from_corner_to_corner_and_not_as_its_box():
    quad = (60.0, 10.0, 110.0, 60.0, 60.0, 110.0, 10.0, 60.0)
    found = Object("text", (10, 10, 110, 110), (0, 0, 9, 9), -1.0, quad=quad)
    record = Record(task="read", source="a.png", model="m", width=120, height=120, objects=(found,))
    plain = Image.new("RGB", (120, 120), "white")
    drawn = np.asarray(draw(plain.copy(), record))
    assert all((drawn[y, x] != 255).any() for x, y in ((85, 35), (85, 85), (35, 85)))  # on its sides
    assert all((drawn[y, x] == 255).all() for x, y in ((110, 100), (100, 110), (60, 60)))  # not its box
