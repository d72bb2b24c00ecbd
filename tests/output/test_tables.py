"""Numbers and tables as people read them."""

import pytest

from mmcli.output.tables import bytes_text, count_text, fit, table


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1536, "1.5 kB"), (8_479_556, "8.5 MB"), (3e9, "3.0 GB"), (3e12, "3000 GB")],
)
def test_sizes_for_people(count, text):
    assert bytes_text(count) == text


@pytest.mark.parametrize(("count", "text"), [(7, "7"), (85_400, "85.4 k"), (2_923_335_408, "2.92 B")])
def test_counts_for_people(count, text):
    assert count_text(count) == text


def test_columns_are_aligned():
    assert table([("a", "bb"), ("ccc", "")]) == "a    bb\nccc\n"
    assert table([]) == ""


def test_columns_are_wrapped_where_a_terminal_is_narrow():
    rows = [("name", "someone/some-model-of-theirs"), ("folder", "one two three four five")]
    assert table(rows, 24) == "name    someone/some-model-of-theirs\nfolder  one two three\n        four five\n"
    assert table(rows, 20) == "name\n    someone/some-model-of-theirs\nfolder\n    one two three\n    four five\n"
    assert table(rows, 80) == table(rows)


def test_paragraphs_are_wrapped_under_their_beginning():
    assert fit("one two\n  three four\n", 9) == "one two\n  three\n    four\n"
    assert fit("one two", None) == "one two"
