"""Checkpoints whose text files an editor or a script has saved anew, with a byte order mark before them."""

import json
from pathlib import Path

import pytest
from command import mmcli

from mmcli.hub.layout import BUNDLED
from mmcli.models.whisper.vocabulary import read_tokenizer

EXAMPLES = Path(__file__).parents[2] / "examples"
SPEECH = EXAMPLES / "jfk.flac"
ENCODINGS = ("utf-8-sig", "utf-16")


def saved_anew(model: Path, folder: Path, encoding: str) -> Path:
    for file in model.iterdir():
        if file.suffix in (".json", ".txt", ".jinja"):
            (folder / file.name).write_text(file.read_text("utf-8"), encoding)
        elif file.is_file():
            (folder / file.name).symlink_to(file)
    return folder


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_nano(tmp_path, encoding):
    done = mmcli("caption", EXAMPLES / "cat.jpg", "--model", saved_anew(BUNDLED["nano"], tmp_path, encoding))
    assert done.code == 0 and "cat" in done.out, done.err


def in_parts(folder: Path, encoding: str) -> Path:
    """Write the tokenizer of a folder as vocab.json, merges.txt and added_tokens.json instead of tokenizer.json."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding))
    (folder / "tokenizer.json").unlink()
    parts = {
        "vocab.json": json.dumps(tokenizer["model"]["vocab"]),
        "added_tokens.json": json.dumps({token["content"]: token["id"] for token in tokenizer["added_tokens"]}),
        "merges.txt": "\r\n".join(["#version: 0.2", *map(" ".join, map(_pair, tokenizer["model"]["merges"])), ""]),
    }
    for name, text in parts.items():
        (folder / name).write_bytes(text.encode(encoding))
    return folder


@pytest.fixture(scope="module")
def transcript(tiny_audio) -> str:
    return mmcli("transcribe", SPEECH, "--model", tiny_audio).out


@pytest.mark.parametrize("encoding", ["utf-8", *ENCODINGS])
def test_a_tokenizer_in_parts(tmp_path, tiny_audio, transcript, encoding):
    folder = in_parts(saved_anew(tiny_audio, tmp_path, encoding), encoding)
    done = mmcli("transcribe", SPEECH, "--model", folder)
    assert (done.code, done.out) == (0, transcript) and transcript, done.err


@pytest.mark.parametrize("encoding", ["utf-8", *ENCODINGS])
def test_a_published_vocabulary_in_parts(tmp_path, encoding):
    whole = read_tokenizer(BUNDLED["whisper-base"])
    parts = read_tokenizer(in_parts(saved_anew(BUNDLED["whisper-base"], tmp_path, encoding), encoding))
    text = "<|startoftranscript|><|en|> And so, my fellow Americans:\n they don't  ask; naïve 日本語 🙂 2,000"
    ids = whole.encode(text).ids
    assert parts.encode(text).ids == ids and len(ids) < len(text) / 2
    size = whole.get_vocab_size()
    assert parts.get_vocab_size() == size
    assert [parts.decode([id]) for id in range(size)] == [whole.decode([id]) for id in range(size)]


def _pair(merge: str | list[str]) -> list[str]:
    return merge.split(" ") if isinstance(merge, str) else merge
