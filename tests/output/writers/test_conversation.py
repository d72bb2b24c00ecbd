"""Conversations as files."""

import json

import pytest

from mmcli.output.record import to_dict
from mmcli.output.schema import Record
from mmcli.output.writers.conversation import Exchange, document


def record(text: str, truncated: bool = False) -> Record:
    return Record(task="chat", source="caf\udce9.jpg", model="nano", text=text, truncated=truncated)


EXCHANGES = [
    Exchange("what is it?", ("caf\udce9.jpg", "a`b.wav"), record("a cat\r\n")),
    Exchange("sure?\nreally?", (), record("\x1b[31mno", truncated=True)),
]

MARKDOWN = """\
# A conversation with nano

**System**

be brief

**You** (`caf\\xe9.jpg`, `a`b.wav`)

what is it?

**nano**

a cat

**You**

sure?
really?

**nano**

\ufffd[31mno […]
"""

TEXT = """\
System: be brief

You (caf\\xe9.jpg, a`b.wav): what is it?

nano: a cat

You: sure?
really?

nano: \ufffd[31mno […]
"""


@pytest.mark.parametrize(("suffix", "expected"), [(".md", MARKDOWN), (".txt", TEXT), ("", TEXT)])
def test_text_to_read(suffix, expected):
    assert document(EXCHANGES, suffix, "be brief") == expected
    assert "System" not in document(EXCHANGES, suffix)


def test_records_are_whole():
    lines = document(EXCHANGES, ".jsonl").splitlines()
    records = [to_dict(exchange.record) for exchange in EXCHANGES]
    assert [json.loads(line) for line in lines] == json.loads(document(EXCHANGES, ".json")) == records
    document(EXCHANGES, ".json").encode()  # names that are no text do not keep it from being written
