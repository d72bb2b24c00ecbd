"""Reading the JSON files of a checkpoint, sound and hostile."""

import json
import os

import pytest

from mmcli.errors import ModelError
from mmcli.hub.json_files import DEEPEST, parse_json, read_json

HOSTILE = {
    "not JSON": (b'{"a": ', "cannot be read"),
    "empty": (b"", "cannot be read"),
    "no object": (b"[1, 2]", "holds no JSON object"),
    "no UTF-8": (b'{"a": "\xff\xfe"}', "cannot be read"),
    "deep": (b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}", "nested more than"),
    "endlessly deep": (b'{"a": ' + b'{"a": [' * 500_000, "nested more than"),
    "half a character": (b'{"a": "\\ud83d"}', "no text"),
    "half a character in a name": (b'{"a": {"\\udc00": 1}}', "no text"),
    "a number of 5,000 digits": (b'{"a": ' + b"9" * 5000 + b"}", "cannot be read"),
    "large": (b'{"a": "' + b"x" * 3000 + b'"}', "larger than"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "words"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_files_are_one_sentence_with_their_name(tmp_path, data, words):
    path = tmp_path / "config.json"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=words) as raised:
        read_json(path, largest=2000 if words == "larger than" else 8_000_000)
    assert str(path) in str(raised.value) and len(str(raised.value)) - len(str(path)) < 200


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_read_past(tmp_path, encoding):
    (tmp_path / "config.json").write_text('{"model_type": "größer"}', encoding)
    assert read_json(tmp_path / "config.json") == {"model_type": "größer"}


def test_nothing_is_waited_for(tmp_path):
    """A pipe that nobody writes to, a folder, a link that leads nowhere or to itself."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "lost").symlink_to("nowhere")
    for name in ("pipe", "folder", "loop", "lost", "absent"):
        with pytest.raises(ModelError, match=name):
            read_json(tmp_path / name)


def test_as_deep_as_allowed_and_one_deeper():
    def nested(levels: int) -> bytes:
        return json.dumps({"a": 1}).encode() if levels == 1 else b'{"a": ' + nested(levels - 1) + b"}"

    assert parse_json(nested(DEEPEST - 1))
    with pytest.raises(ValueError, match="nested"):
        parse_json(nested(DEEPEST))


def test_a_key_twice_is_refused_where_keys_must_be_unique():
    assert parse_json(b'{"a": 1, "a": 2}') == {"a": 2}
    with pytest.raises(ValueError, match="'a' twice"):
        parse_json(b'{"b": {"a": 1, "a": 2}}', unique=True)
