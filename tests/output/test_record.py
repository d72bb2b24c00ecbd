"""The record's form: its keys, its numbers, and that it can always be written."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcli.errors import InputError
from mmcli.output.record import failed_record, object_record, record, to_json_line

GIVEN = {
    "task": "detect", "source": "a.jpg", "model": "nano", "revision": None, "width": 640, "height": 480,
    "prompt": "detect cat", "text": "<loc0001>…",
}  # fmt: skip


def test_the_keys_come_in_the_documented_order():
    assert list(record(**GIVEN)) == [
        "schema", "task", "source", "model", "revision", "width", "height", "prompt", "text", "truncated", "objects",
        "problems", "notes", "timings",
    ]  # fmt: skip
    assert list(record(**GIVEN, token_ids=[1, 2]))[-1] == "token_ids"


def test_a_failed_record_says_which_input_and_why():
    failed = failed_record(
        task="detect", source="b.jpg", model="nano", revision=None, error=InputError("b.jpg is empty", "Copy it again")
    )
    assert list(failed) == ["schema", "task", "source", "model", "revision", "error"]
    assert failed["error"] == "b.jpg is empty. Copy it again."


def test_numbers_are_rounded():
    found = object_record("cat", (1.23456, 2, 3.999, 4.005), (1, 2, 3, 4), -0.123456)
    assert found == {"label": "cat", "box": [1.23, 2.0, 4.0, 4.0], "loc": [1, 2, 3, 4], "score": -0.1235}
    assert record(**GIVEN, timings={"decode": 0.123456})["timings"] == {"decode": 0.1235}


@pytest.mark.parametrize("score", [math.nan, -math.inf])
def test_a_score_that_is_no_number_is_null(score):
    assert object_record("cat", (1, 2, 3, 4), (1, 2, 3, 4), score)["score"] is None


def test_a_mask_is_there_only_where_one_is():
    mask = {"size": [2, 2], "counts": "4"}
    assert object_record("cat", (1, 2, 3, 4), (1, 2, 3, 4), 0.0, mask)["mask"] == mask


def test_text_of_any_script_stays_readable():
    assert '"text": "ein Kätzchen, 猫 🐈"' in to_json_line(record(**GIVEN | {"text": "ein Kätzchen, 猫 🐈"}))


def test_a_file_name_that_is_not_utf_8_can_be_written_and_comes_back():
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    line = to_json_line(record(**GIVEN | {"source": name}))
    assert json.loads(line.encode("utf-8"))["source"] == name


@given(st.text(st.characters(codec=None, exclude_categories=())))
def test_every_record_is_one_line_of_utf_8(text):
    line = to_json_line(record(**GIVEN | {"text": text}))
    assert json.loads(line.encode("utf-8"))["text"] == text
    assert line.endswith("\n") and len(line.splitlines()) == 1
