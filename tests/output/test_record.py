"""The record's form: its fields, its numbers, that it can always be written, and whether it still answers."""

import json
import math
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import faults

from mmcli.errors import InputError
from mmcli.output import json_schema
from mmcli.output.record import answers, docs, from_dict, run_key, to_dict, to_json_line
from mmcli.output.schema import Object, Record, Settings
from mmcli.output.writers import WRITERS, writer_of, writers_for
from mmcli.rle import Mask
from mmcli.types import Segment, Word

CAT = Object("cat", (1.23456, 2, 3.999, 4.005), (1, 2, 3, 4), -0.123456)
NAMED = {"source": "a.jpg", "model": "nano"}
GIVEN = {**NAMED, "task": "detect", "width": 640, "height": 480, "prompt": "detect cat", "text": "<loc0001>…"}
WORD = Word(0.5, 1.0, "hello", 0.98765)
RECORDS = [
    Record(**GIVEN, key="ab", settings=Settings(temperature=0.0, max_tokens=512, dtype="float32"), objects=(CAT,)),
    Record(**GIVEN, objects=(Object("cat", (0, 0, 1, 1), (0, 0, 9, 9), None, 0.5, "both", Mask((480, 640), "0")),)),
    Record(task="chat", source=("a.jpg", "b.wav"), model="m", revision="0a", token_ids=(1, 2), notes=("a", "b")),
    Record(
        task="chat", source=None, model="m", truncated=True, problems=("a fault",), timings={"load": 0.5, "batch": 1}
    ),
    Record(**NAMED, task="transcribe", seconds=3.0, timestamps="segment", segments=(Segment(0, 1, "hello"),)),
    Record(**NAMED, task="translate", seconds=3.0, timestamps="word", segments=(Segment(0, 1, "hello", (WORD,)),)),
    Record(**NAMED, task="detect", error="b.jpg is empty. Copy it again."),
]


def test_the_keys_come_in_the_documented_order():
    assert list(to_dict(RECORDS[0])) == [
        "schema", "task", "source", "model", "revision", "version", "key", "settings", "width", "height", "prompt",
        "text", "truncated", "objects", "problems", "notes", "timings",
    ]  # fmt: skip
    assert list(to_dict(RECORDS[2]))[-1] == "token_ids"
    assert list(to_dict(RECORDS[-1])) == [
        "schema", "task", "source", "model", "revision", "version", "settings", "error"
    ]  # fmt: skip
    assert to_dict(RECORDS[0])["settings"] == {"temperature": 0.0, "max_tokens": 512, "dtype": "float32"}


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.task)
def test_every_kind_of_record_is_valid_and_comes_back_from_its_line(record):
    entry = json.loads(to_json_line(record))
    assert faults(entry) == []
    again = from_dict(entry)
    assert type(again) is Record and to_dict(again) == entry
    assert again.kind == record.kind and len(again.objects) == len(record.objects)
    assert all(isinstance(one, Object) for one in again.objects) and all(isinstance(s, Segment) for s in again.segments)


@pytest.mark.parametrize(
    "change",
    [{"loc": [1]}, {"schema": 1}, {"settings": {"temprature": 0}}, {"width": "640"}, {"objects": [{"label": "cat"}]},
     {"error": "both an answer and a failure"}, {"segments": []}],
)  # fmt: skip
def test_the_schema_finds_what_is_no_record(change):
    entry = to_dict(RECORDS[0])
    assert faults(entry) == [] and faults(entry | change)
    assert all(faults({name: value for name, value in entry.items() if name != left}) for left in entry)


def test_the_files_made_from_the_classes_are_those_that_are_checked_in():
    """If this fails: python -m mmcli.output.json_schema"""
    assert json.loads(json_schema.FILE.read_text("utf-8")) == json_schema.json_schema()
    assert json_schema.PAGE.read_text("utf-8") == json_schema.page()


@pytest.mark.parametrize("kind", [Record, *json_schema._nested(Record)], ids=lambda kind: kind.__name__)
def test_every_field_says_what_it_holds(kind):
    assert docs(kind).keys() == {one.name for one in fields(kind)}
    assert all(doc.text.endswith(".") for doc in docs(kind).values())


def test_numbers_are_rounded_as_they_are_written():
    [found] = to_dict(RECORDS[0])["objects"]
    assert found == {"label": "cat", "box": [1.23, 2, 4.0, 4.0], "raw_box": [1, 2, 3, 4], "score": -0.1235}
    assert to_dict(Record(**GIVEN, timings={"decode": 0.123456}))["timings"] == {"decode": 0.1235}


@pytest.mark.parametrize("score", [math.nan, -math.inf])
def test_a_number_that_is_none_is_null(score):
    assert (
        to_dict(Record(**GIVEN, objects=(Object("cat", (1, 2, 3, 4), (1, 2, 3, 4), score),)))["objects"][0]["score"]
        is None
    )


def test_text_of_any_script_stays_readable():
    assert '"text": "ein Kätzchen, 猫 🐈"' in to_json_line(Record(**GIVEN | {"text": "ein Kätzchen, 猫 🐈"}))


def test_a_file_name_that_is_not_utf_8_can_be_written_and_comes_back():
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    line = to_json_line(Record(**GIVEN | {"source": name}))
    assert json.loads(line.encode("utf-8"))["source"] == name


@given(st.text(st.characters(codec=None, exclude_categories=())))
def test_every_record_is_one_line_of_utf_8(text):
    line = to_json_line(Record(**GIVEN | {"text": text}))
    assert json.loads(line.encode("utf-8"))["text"] == text
    assert line.endswith("\n") and len(line.splitlines()) == 1


# -- whether it still answers ------------------------------------------------------------------------------------

ASKED = {
    "task": "detect", "model": "nano", "weights": "aa", "prompt": "detect cat", "source": "file a.jpg 12 34",
    "settings": Settings(temperature=0.0),
}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [{"task": "segment"}, {"model": "other"}, {"weights": "bb"}, {"prompt": "detect dog"}, {"source": "file b.jpg 1 2"},
     {"settings": Settings(temperature=0.5)}, {"settings": Settings(temperature=0.0, dtype="bfloat16")}],
)  # fmt: skip
def test_a_key_changes_with_each_thing_that_decides_the_answer(change):
    assert run_key(**ASKED) == run_key(**ASKED) != run_key(**ASKED | change)


def test_what_cannot_be_told_apart_has_no_key():
    assert run_key(**ASKED | {"source": None}) is None


def test_a_record_answers_the_run_of_its_key_and_no_other():
    key = run_key(**ASKED)
    entry = to_dict(Record(**GIVEN, key=key))
    assert answers(entry, key)
    assert not answers(entry, run_key(**ASKED | {"prompt": "detect dog"}))
    assert not answers(to_dict(Record(**GIVEN)), None)
    assert not answers(entry | {"error": "it failed"}, key)


def test_a_record_of_schema_1_never_answers_and_is_not_read():
    """It does not say how it was made: what it tells of is asked again."""
    old = {
        "schema": 1, "task": "caption", "source": "a.jpg", "model": "nano", "revision": None, "width": 4, "height": 3,
        "prompt": "caption en", "text": "a cat", "truncated": False, "objects": [], "problems": [], "notes": [],
        "timings": {},
    }  # fmt: skip
    key = run_key(**ASKED)
    assert not answers(old, key) and not answers(old, None)
    assert not answers(old | {"key": key}, key) and not answers({"key": key}, key)
    with pytest.raises(InputError, match=r"A record of schema 1 cannot be read: this version reads schema 2\. Run"):
        from_dict(old)
    with pytest.raises(InputError, match="is no record"):
        from_dict({"schema": 2, "something": 1})


# -- writers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.task)
def test_every_form_of_its_kind_can_be_written(record):
    for writer in writers_for(record.kind):
        assert isinstance(writer.write(record, False), str) and isinstance(writer.write(record, True), str)
    assert writers_for("failed") == []


def test_the_name_of_a_file_tells_the_form(tmp_path):
    assert writer_of("a.SRT", "audio") is WRITERS["srt"] and writer_of("a.tsv", "image") is None
    assert writer_of("a.json", "image") is WRITERS["json"] and writer_of("a.png", "image") is None
    assert writer_of(str(tmp_path), "audio") is writer_of("a.srt/", "audio") is writer_of(None, "audio") is None
