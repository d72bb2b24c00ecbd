"""Checkpoints whose text files an editor or a script has saved anew, with a byte order mark before them."""

import json
from pathlib import Path

import pytest
from command import mmcli

from mmcli.hub.layout import BUNDLED

EXAMPLES = Path(__file__).parents[2] / "examples"
SPEECH = EXAMPLES / "jfk.flac"
ENCODINGS = ("utf-8-sig", "utf-16")


def saved_anew(model: str, folder: Path, encoding: str) -> Path:
    for file in BUNDLED[model].iterdir():
        if file.suffix in (".json", ".txt", ".jinja"):
            (folder / file.name).write_text(file.read_text("utf-8"), encoding)
        elif file.is_file():
            (folder / file.name).symlink_to(file)
    return folder


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_nano(tmp_path, encoding):
    done = mmcli("caption", EXAMPLES / "cat.jpg", "--model", saved_anew("nano", tmp_path, encoding))
    assert done.code == 0 and "cat" in done.out, done.err


@pytest.fixture(scope="module")
def transcript() -> str:
    return mmcli("transcribe", SPEECH).out


@pytest.mark.parametrize("encoding", ["utf-8", *ENCODINGS])
def test_a_tokenizer_in_parts(tmp_path, transcript, encoding):
    """vocab.json, merges.txt and added_tokens.json are the same tokenizer as tokenizer.json."""
    folder = saved_anew("whisper-base", tmp_path, encoding)
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding))
    (folder / "tokenizer.json").unlink()
    parts = {
        "vocab.json": json.dumps(tokenizer["model"]["vocab"]),
        "added_tokens.json": json.dumps({token["content"]: token["id"] for token in tokenizer["added_tokens"]}),
        "merges.txt": "\r\n".join(["#version: 0.2", *map(" ".join, map(_pair, tokenizer["model"]["merges"])), ""]),
    }
    for name, text in parts.items():
        (folder / name).write_bytes(text.encode(encoding))
    done = mmcli("transcribe", SPEECH, "--model", folder)
    assert (done.code, done.out) == (0, transcript) and transcript, done.err


def _pair(merge: str | list[str]) -> list[str]:
    return merge.split(" ") if isinstance(merge, str) else merge
