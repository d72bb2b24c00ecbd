"""CSV: what a spreadsheet reads is what was found, and nothing of it is taken for a formula."""

import csv
import io

import pytest

from mmcli.output.schema import Object, Record
from mmcli.output.writers.table import COLUMNS, head, to_csv
from mmcli.types import Segment


def rows(text) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


def test_an_object_a_row():
    found = Object(label="cat", box=(1.0, 2.0, 3.456, 4.0), raw_box=(), score=-0.25, probability=0.5)
    record = Record(task="detect", source="a,b.jpg", model="nano", objects=(found, found))
    [first, second] = rows(to_csv(record))
    assert first == second == ["a,b.jpg", "detect", "cat", "1.0", "2.0", "3.46", "4.0", "-0.25", "0.5", "", ""]
    assert len(first) == len(rows(head("image"))[0]) == len(COLUMNS["image"])


def test_an_answer_and_a_segment_and_a_failure():
    said = Record(task="caption", source="a.jpg", model="nano", text='two\nlines, "quoted"')
    assert rows(to_csv(said))[0][9] == 'two\nlines, "quoted"'
    segment = Segment(start=0.5, end=1.25, text=" Hello")
    transcript = Record(task="transcribe", source="a.wav", model="w", segments=(segment,), timestamps="segment")
    assert rows(to_csv(transcript)) == [["a.wav", "transcribe", "0.5", "1.25", " Hello", ""]]
    for task, kind in (("caption", "image"), ("translate", "audio")):
        [row] = rows(to_csv(Record(task=task, source="a.jpg", model="nano", error="it is no picture")))
        assert row[-1] == "it is no picture" and len(row) == len(COLUMNS[kind])


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "\r=1", "\n=1", "＝1", "=cmd|' /C calc'!A0"]
)
def test_no_text_is_a_formula(text):
    record = Record(task="caption", source=text, model="nano", text=text)
    [row] = rows(to_csv(record))
    for cell in (row[0], row[9]):
        assert cell[0] in "'\ufffd" and cell[1:].lstrip() == text.lstrip()  # a control character is shown as one
