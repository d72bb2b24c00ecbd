"""Records as lines of text."""

from dataclasses import replace

import pytest

from mmcli.output.schema import Object, Record
from mmcli.output.writers.text import to_text

CAT = Object("cat", (1.5, 2.0, 300.25, 4.0), (0, 0, 1, 1), -0.0312)


def detected(*objects, source="a.jpg"):
    return Record(task="detect", source=source, model="nano", text="<loc…", objects=objects)


def captioned(text, source="a.jpg"):
    return Record(task="caption", source=source, model="nano", text=text)


@pytest.mark.parametrize(
    ("record", "several", "text"),
    [
        (captioned("a cat"), False, "a cat\n"),
        (captioned("a cat"), True, "a.jpg: a cat\n"),
        (captioned("one\ntwo\n"), False, "one\ntwo\n"),  # an answer of several lines stays one
        (captioned("one\ntwo\n"), True, "a.jpg: one two\n"),  # unless each image has its line
        (captioned("a cat", "a[red].png"), True, "a[red].png: a cat\n"),  # brackets are no markup
        (captioned("a cat", "a\tb\n.png"), True, "a b .png: a cat\n"),
        (captioned("\x1b[31mred"), False, "\ufffd[31mred\n"),  # no answer recolours the terminal
        (captioned("\ud800"), False, "\ufffd\n"),
        (captioned(""), False, "\n"),
        (captioned("yes", None), False, "yes\n"),  # a question about nothing
        (captioned("yes", ("a.jpg", "b.jpg")), False, "yes\n"),  # or about several at once
        (detected(CAT), False, "cat\t1.5\t2\t300.25\t4\t-0.0312\n"),
        (detected(CAT), True, "a.jpg\tcat\t1.5\t2\t300.25\t4\t-0.0312\n"),
        (detected(CAT, CAT), False, "cat\t1.5\t2\t300.25\t4\t-0.0312\n" * 2),
        (detected(), False, ""),  # nothing found prints nothing
        (detected(), True, ""),
        (detected(replace(CAT, label="a\tb")), False, "a b\t1.5\t2\t300.25\t4\t-0.0312\n"),
        (detected(replace(CAT, score=None)), False, "cat\t1.5\t2\t300.25\t4\t\n"),
        (detected(replace(CAT, box=(0.0, 100.0, 1000000.0, 20.1))), False, "cat\t0\t100\t1000000\t20.1\t-0.0312\n"),
        (Record(task="detect", source="a.jpg", model="nano", error="a.jpg is empty."), True, ""),
    ],
)
def test_the_text_of_a_record(record, several, text):
    assert to_text(record, several) == text


def test_a_name_that_is_not_utf_8_keeps_its_bytes():
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    assert to_text(captioned("a", name), True).encode("utf-8", "surrogateescape") == b"caf\xe9.jpg: a\n"
