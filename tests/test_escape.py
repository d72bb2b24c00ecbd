"""What reaches a terminal: nothing that it obeys, nothing unseen, and not too much."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcli.escape import LONGEST, escape, escape_json, escape_line, shorten, wrap

ANY = st.text(st.characters(codec=None, exclude_categories=()))
JOINERS = "\u200c\u200d"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\rmmcli: all is well", r"a\rmmcli: all is well"),
        ("a\nb\tc", r"a\nb\tc"),
        ("\x9b31m\x85", r"\x9b31m\x85"),  # C1: what ESC begins, in one character
        ("\x7f", r"\x7f"),
        (b"caf\xe9".decode("utf-8", "surrogateescape"), r"caf\xe9"),  # bytes of a name that are no text
        ("\ud800", r"\ud800"),
        ("photo\u202egpj.exe", r"photo\u202egpj.exe"),
        ("a\u200bb\ufeff\u2060", r"a\u200bb\ufeff\u2060"),
        ("a\u200db", r"a\u200db"),  # a joiner between letters that never join
        ("\U000e0041", r"\U000e0041"),
        ("a\u2028b", r"a\u2028b"),
    ],
)
def test_what_a_terminal_would_obey_or_hide_is_spelt_out(text, shown):
    assert escape_line(text) == shown


@pytest.mark.parametrize(
    "text", ["[bold]", "ein Kätzchen", "猫　🐈", "👩\u200d🚀", "می\u200cخواهم", "x\u00a0y", "\\n", "שלום"]
)
def test_what_people_write_stays(text):
    assert escape_line(text) == escape(text) == escape_json(text) == text


def test_text_keeps_its_lines():
    assert escape("one\n\ttwo\r\x1b") == "one\n\ttwo\\r\\x1b"


@given(ANY)
def test_no_control_is_left(text):
    left = escape_line(text)
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in left)
    assert escape_line(left) == left


@given(ANY)
def test_json_means_the_same_and_is_valid_utf_8(text):
    line = escape_json(json.dumps([text], ensure_ascii=False))
    assert json.loads(line.encode("utf-8")) == [text]
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in line)


def test_what_is_long_loses_its_middle():
    assert shorten("x" * LONGEST) == "x" * LONGEST
    short = shorten("mmcli: " + "x" * 9999 + ".jpg does not exist. Check the name.")
    assert len(short) == LONGEST and short.startswith("mmcli: xxx")
    assert short.endswith("xxx.jpg does not exist. Check the name.")


@given(st.text("ab猫 ", max_size=200).map(str.lstrip), st.integers(4, 60))
def test_lines_are_broken_between_words_and_nothing_is_lost(text, columns):
    lines = wrap(text, columns)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    for line in lines:
        *_, last = line.split() or [""]
        wide = len(line) + line.count("猫") > columns
        assert not wide or len(last) + last.count("猫") + 2 > columns  # it would fit nowhere
    assert all(line.startswith("  ") for line in lines[1:])
