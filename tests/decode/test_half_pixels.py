"""Places in half pixels: what a model may write, whole or broken, and where it lies in the image."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcli.decode.half_pixels import Fit, HalfPixelGrammar
from mmcli.types import Token

BOX, BOX_END, POINT, POINT_END = range(1000, 1004)
GRAMMAR = HalfPixelGrammar(
    {BOX: "box", POINT: "point"}, {BOX_END: "box", POINT_END: "point"}, {2000 + number: number for number in range(961)}
)
MARKS = {"<box>": BOX, "</box>": BOX_END, "<point>": POINT, "</point>": POINT_END}


def tokens(text: str) -> list[Token]:
    """Words of marks, numbers and letters → tokens; the log-probability of each is minus its place."""
    ids: list[int] = []
    for word in text.split():
        ids += [MARKS[word]] if word in MARKS else [2000 + int(word)] if word.isdigit() else map(ord, word + " ")
    return [Token(id, -float(place)) for place, id in enumerate(ids)]


def letters(ids: list[int]) -> str:
    return "".join(chr(id) for id in ids if id < 1000)


def parsed(text: str):
    found = GRAMMAR.parse(tokens(text), letters)
    return [(one.label, one.loc) for one in found.objects], found.problems


@pytest.mark.parametrize(
    ("text", "objects"),
    [
        ("", []),
        ("nothing at all", []),
        ("<box> 1 2 3 4 </box>", [("", (1, 2, 3, 4))]),
        ("cat <box> 1 2 3 4 </box>", [("cat", (1, 2, 3, 4))]),
        ("a cat <box> 0 0 960 960 </box> and then", [("a cat", (0, 0, 960, 960))]),
        ("<point> 7 8 </point>", [("", (7, 8))]),
        ("cat <point> 7 8 </point> dog <box> 1 2 3 4 </box>", [("cat", (7, 8)), ("dog", (1, 2, 3, 4))]),
        ("<box> 1 2 3 4 </box> <box> 5 6 7 8 </box>", [("", (1, 2, 3, 4)), ("", (5, 6, 7, 8))]),
        ("12 cats <box> 1 2 3 4 </box>", [("cats", (1, 2, 3, 4))]),  # the number is a word there
    ],
)
def test_whole_places(text, objects):
    assert parsed(text) == (objects, [])


@pytest.mark.parametrize(
    ("text", "problem", "kept"),
    [
        ("<box> 1 2 3 </box>", "the box of an object has 3 of 4 numbers", 0),
        ("<box> </box>", "the box of an object has 0 of 4 numbers", 0),
        ("cat <box> 1 2 3 4 5 </box>", 'the box of "cat" has 5 numbers instead of 4', 0),
        ("<point> 1 2 3 4 </point>", "the point of an object has 4 numbers instead of 2", 0),
        ("<point> 1 </point>", "the point of an object has 1 of 2 numbers", 0),
        ("<box> 1 2 3 4 </point>", "the box of an object ends as a point", 0),
        ("<box> 1 2 3 4", "the box of an object does not end", 0),
        ("<box> 1 2", "the box of an object has 2 of 4 numbers", 0),
        ("<box>", "the box of an object has 0 of 4 numbers", 0),
        ("<box> 1 2 cat 3 4 </box>", "the box of an object has 2 of 4 numbers", 0),
        ("cat <box> 1 2 <box> 5 6 7 8 </box>", 'the box of "cat" has 2 of 4 numbers', 1),
        ("1 2 3 4 </box>", "a box ends that has not begun", 0),
        ("<box> 1 2 3 4 </box> </box>", "a box ends that has not begun", 1),
        ("</point>", "a point ends that has not begun", 0),
        ("cat <box> 3 2 1 4 </box>", 'the box of "cat" is empty', 0),
        ("cat <box> 1 4 3 2 </box>", 'the box of "cat" is empty', 0),
        ("cat <box> 1 2 1 2 </box>", 'the box of "cat" is empty', 0),
        ("<point> 1 2 </point> <point> 1 2 </point>", "an object is repeated at the same place; it is kept once", 1),
    ],
)
def test_broken_places(text, problem, kept):
    objects, problems = parsed(text)
    assert len(objects) == kept
    assert problem in problems and all(GRAMMAR.finds_places([token.id]) for token in tokens(text) if token.id == BOX)


def test_a_problem_that_comes_again_is_counted():
    assert parsed("<box> </box> <box> </box>")[1] == ["the box of an object has 0 of 4 numbers (2 times)"]


@given(st.lists(st.sampled_from(["<box>", "</box>", "<point>", "</point>", "cat", "0", "1", "2", "960"]), max_size=30))
def test_nothing_that_a_model_writes_is_an_error(words):
    found = GRAMMAR.parse(tokens(" ".join(words)), letters)
    assert all(len(one.loc) in (2, 4) and one.score <= 0 for one in found.objects)
    opened = words.count("<box>") + words.count("<point>")
    assert len(found.objects) <= opened and bool(found.problems or not opened or found.objects)


def test_the_score_is_the_mean_of_words_marks_and_numbers():
    found = GRAMMAR.parse(tokens("x <point> 7 8 </point> y"), letters)
    assert found.objects[0].score == -sum(range(6)) / 6  # two letters, the space among them


def test_the_better_of_two_alike_is_kept():
    found = GRAMMAR.parse(tokens("<point> 1 2 </point> <point> 1 2 </point>"), letters)
    assert [one.score for one in found.objects] == [-1.5]


# -- where they lie ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loc", "size", "box"),
    [
        ((194, 213, 202, 244), (1080, 1920), (426, 388, 488, 404)),  # y0 x0 y1 x1 → x0 y0 x1 y1, two pixels a unit
        ((10, 20, 30, 40), (45, 90), (40, 20, 80, 45)),  # never enlarged; what was added below is cut off
        ((0, 0, 540, 960), (2160, 3840), (0, 0, 3840, 2160)),  # twice as large as it was seen
        ((0, 0, 7, 540), (30, 4000), (0, 0, 2250.0, 30)),
        ((7, 8), (1080, 1920), (14, 16, 14, 16)),  # a point is x y
    ],
)
def test_boxes_in_pixels(loc, size, box):
    assert GRAMMAR.box(loc, size[1], size[0]) == pytest.approx(box)


sides = st.integers(1, 12_000)


@given(sides, sides, st.floats(0, 1), st.floats(0, 1))
def test_a_place_survives_the_models_units_to_half_of_one(height, width, down, across):
    """In pixels of the image: as much as one pixel of what the model saw, since a unit is two."""
    fit = Fit()
    x, y = across * width, down * height
    small_height, small_width = fit.resized(height, width)
    units = fit.to_units(x, y, height, width)
    assert all(unit in range(961) for unit in units)
    back_x, back_y = fit.to_pixels(*units, height, width)
    assert abs(back_x - x) <= width / small_width + 1e-6 and abs(back_y - y) <= height / small_height + 1e-6


@given(sides, sides)
def test_an_image_is_shrunk_to_fit_and_its_corner_is_its_corner(height, width):
    fit = Fit()
    small_height, small_width = fit.resized(height, width)
    assert 1 <= small_height <= min(height, 1080) and 1 <= small_width <= min(width, 1920)
    if (small_height, small_width) != (height, width):
        assert height > 1080 or width > 1920
        scale = min(1080 / height, 1920 / width)
        assert small_height in (max(1, math.floor(height * scale)), height) and height * scale - small_height < 1
    corner = fit.to_pixels(small_width / 2, small_height / 2, height, width)
    assert corner == pytest.approx((width, height))
    assert fit.to_pixels(1e9, -5, height, width) == (width, 0)


def test_a_typed_place_becomes_tokens_and_a_wrong_one_a_sentence():
    assert GRAMMAR.encode("box", [388, 426, 404, 488], 1920, 1080) == [BOX, 2194, 2213, 2202, 2244, BOX_END]
    assert GRAMMAR.encode("point", [1920, 0], 3840, 2160) == [POINT, 2480, 2000, POINT_END]
    with pytest.raises(ValueError, match="a box has 4 numbers, not 2"):
        GRAMMAR.encode("box", [1, 2], 10, 10)
    short = HalfPixelGrammar(GRAMMAR.opens, GRAMMAR.closes, {2000: 0})
    with pytest.raises(ValueError, match="no token for 4"):
        short.encode("point", [8, 10], 20, 20)
