"""Answers in quantised coordinates: what is whole becomes an object, what is not becomes a sentence, nothing raises."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcli.decode.quantised import QuantisedGrammar
from mmcli.types import Token

LETTERS = "abc d\n<é"
SEP, POLY, END, OTHER = "<sep>", "<poly>", "</poly>", "<od>"
WORDS = [*LETTERS, SEP, POLY, END, OTHER]
LOC = len(WORDS)
GRAMMAR = QuantisedGrammar(LOC, WORDS.index(SEP), WORDS.index(POLY), WORDS.index(END))


def tokens(*parts: str | int) -> list[Token]:
    """Names of marks, letters of words, and locations by their numbers; the k-th has the log-probability -k."""
    ids = []
    for part in parts:
        if isinstance(part, int):
            ids.append(LOC + part)
        else:
            ids += [WORDS.index(part)] if part in WORDS else [WORDS.index(letter) for letter in part]
    return [Token(id, -float(place)) for place, id in enumerate(ids)]


def decode(ids: list[int]) -> str:
    return "".join(WORDS[id] if id < LOC else f"<loc_{id - LOC}>" for id in ids)


def parse(*parts: str | int, kind="boxes", labelled=True, **more):
    grammar = QuantisedGrammar(LOC, GRAMMAR.separator, GRAMMAR.begin, GRAMMAR.end, kind=kind, labelled=labelled, **more)
    return grammar.parse(tokens(*parts), decode)


def test_boxes_follow_their_label_and_share_it():
    parsed = parse("a b", 1, 2, 3, 4, 10, 20, 30, 40, "c", 5, 6, 7, 8)
    assert [(one.label, one.loc) for one in parsed.objects] == [
        ("a b", (1, 2, 3, 4)), ("a b", (10, 20, 30, 40)), ("c", (5, 6, 7, 8))
    ]  # fmt: skip
    assert parsed.problems == [] and parsed.text.startswith("a b<loc_1><loc_2>")
    assert parsed.objects[0].score == pytest.approx(-sum(range(7)) / 7)  # label and own places
    assert parsed.objects[1].score == pytest.approx(-(0 + 1 + 2 + 7 + 8 + 9 + 10) / 7)


@pytest.mark.parametrize(
    "parts, kind, found, problems",
    [
        (("a", 1, 2, 3), "boxes", 0, ['"a" has 3 of 4 coordinates']),  # cut off
        (("a", 1, 2, 3, 4, 5), "boxes", 1, ['"a" has 1 coordinate behind its last box']),
        (("a", 1, 2, 3, 4, 5, 6, 7), "boxes", 1, ['"a" has 3 coordinates behind its last box']),
        ((1, 2, 3, 4), "boxes", 0, ["a box has no label"]),
        ((1, 2, 3, 4, 5, 6, 7, 8), "boxes", 0, ["2 boxes have no label"]),
        (("a", OTHER, "<", 1, 2, 3, 4), "boxes", 0, ["a box has no label"]),  # "<" alone
        (("a\nb", 1, 2, 3, 4), "boxes", 0, ["a box has no label"]),
        (("\na", 1, 2, 3, 4), "boxes", 1, []),
        (("a", 3, 2, 1, 4), "boxes", 0, ['the box of "a" is empty']),
        (("a", 1, 4, 3, 4), "boxes", 0, ['the box of "a" is empty']),
        (("abc",), "boxes", 0, []),
        ((), "boxes", 0, []),
        (("a", *range(8)), "quads", 1, []),
        (("a", *range(7)), "quads", 0, ['"a" has 7 of 8 coordinates']),
        (("a", *range(9)), "quads", 1, ['"a" has 9 coordinates instead of 8']),
        (tuple(range(8)), "quads", 0, ["the corners of an object have no text"]),
        (("ab\n", *range(8)), "quads", 0, ["the corners of an object have no text"]),
        (("a", *range(6)), "polygons", 1, []),
        (("a", *range(7)), "polygons", 1, ["an outline has an odd number of coordinates; the last one is left out"]),
        (("a", 1, 2, SEP, 3, 4), "polygons", 0, ["an outline has 1 of 3 points (2 times)"]),
        (("a", 1), "polygons", 0, ["an outline breaks off at once"]),
        (("a", POLY, END, SEP, SEP), "polygons", 0, []),
        (tuple(range(6)), "polygons", 0, ["an outline has no label"]),
        (("a", END, *range(6), POLY), "polygons", 0, ["an outline ends before it begins"]),
        (("a", POLY, *range(6)), "polygons", 1, []),  # cut off in the middle
        (("a", *range(6), POLY), "polygons", 0, []),  # no separator and no end behind it
    ],
)
def test_what_is_malformed_is_told(parts, kind, found, problems):
    parsed = parse(*parts, kind=kind)
    assert (len(parsed.objects), parsed.problems) == (found, problems)


def test_quads_keep_their_corners_and_the_box_holds_them():
    [one] = parse(" a b ", 9, 2, 5, 1, 4, 7, 8, 8, kind="quads").objects
    assert (one.label, one.quad, one.loc) == ("a b", (9, 2, 5, 1, 4, 7, 8, 8), (4, 1, 9, 8))


def test_polygons_are_parted_and_objects_too():
    parsed = parse("a", POLY, *range(6), SEP, *range(10, 16), END, POLY, *range(20, 28), END, kind="boxes or polygons")
    assert [one.polygons for one in parsed.objects] == [
        (tuple(range(6)), tuple(range(10, 16))), (tuple(range(20, 28)),)
    ]  # fmt: skip
    assert [one.loc for one in parsed.objects] == [(0, 1, 14, 15), (20, 21, 26, 27)]


def test_where_nothing_is_named_no_label_is_needed_and_none_taken():
    assert [one.label for one in parse("a", 1, 2, 3, 4, labelled=False).objects] == [""]
    assert [one.label for one in parse(1, 2, 3, 4, 5, 6, kind="polygons", labelled=False).objects] == [""]


def test_words_that_name_nothing_are_left_out():
    parsed = parse("a", 1, 2, 3, 4, "b", 1, 2, 3, 4, unnamed=frozenset("a"))
    assert [one.label for one in parsed.objects] == ["b"] and parsed.problems == []


def test_a_bin_is_read_at_its_middle():
    assert GRAMMAR.box((0, 0, 999, 999), 1000, 500) == (0.5, 0.25, 999.5, 499.75)
    assert GRAMMAR.points((0, 999, 500, 1), 200, 100) == pytest.approx((0.1, 99.95, 100.1, 0.15))


@given(
    st.lists(st.integers(0, LOC + 40), max_size=40),
    st.sampled_from(["boxes", "quads", "polygons", "boxes or polygons"]),
    st.booleans(),
)
def test_no_answer_makes_it_fail(ids, kind, labelled):
    grammar = QuantisedGrammar(LOC, GRAMMAR.separator, GRAMMAR.begin, GRAMMAR.end, kind=kind, labelled=labelled)
    parsed = grammar.parse([Token(id, -1.0) for id in ids], decode)
    assert all(one.score == pytest.approx(-1.0) for one in parsed.objects)
    assert all(x0 <= x1 and y0 <= y1 for x0, y0, x1, y1 in (one.loc for one in parsed.objects))
