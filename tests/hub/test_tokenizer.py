"""Tokenizer files that are hostile: each is one sentence, before the library that would follow them sees them."""

import json

import pytest
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, normalizers, pre_tokenizers

from mmcli.errors import ModelError
from mmcli.hub.tokenizer import Tokenizer, reading

DOUBLING = {"type": "Replace", "pattern": {"String": " "}, "content": "  "}


def small() -> dict:
    library = Library(models.BPE({"a": 0, "b": 1, "ab": 2, "▁": 3}, [("a", "b")]))
    library.normalizer = normalizers.Replace(" ", "▁")
    library.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    library.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    library.add_special_tokens(["<end>"])
    return json.loads(library.to_str())


def write(folder, content: dict):
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(content))
    return path


def test_a_sound_one_reads_and_writes(tmp_path):
    tokenizer = Tokenizer.open(write(tmp_path, small()))
    assert tokenizer.encode("ab a<end>").ids == [2, 3, 0, 4]
    assert tokenizer.decode([2, 3, 0]) == "ab a"
    assert tokenizer.token_to_id("<end>") == 4 and tokenizer.id_to_token(9) is None


def test_likely_pieces_with_bytes_as_the_last_resort(tmp_path):
    pieces = [("<unk>", 0.0), ("▁ab", -1.0), ("a", -2.0), ("b", -2.0), ("▁", -2.0), ("<0xC3>", 0.0), ("<0xA9>", 0.0)]
    library = Library(models.Unigram(pieces, 0, byte_fallback=True))
    library.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    library.decoder = decoders.Sequence(steps)
    tokenizer = Tokenizer.open(write(tmp_path, json.loads(library.to_str())))
    assert tokenizer.encode("ab baé").ids == [1, 4, 3, 2, 5, 6]
    assert tokenizer.decode([1, 4, 3, 2, 5, 6]) == "ab baé"


def test_a_file_as_large_as_published_ones(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(small()) + " " * 33_000_000)
    assert Tokenizer.open(path).encode("ab").ids == [2]


def nested(levels: int) -> dict:
    step = DOUBLING
    for _ in range(levels):
        step = {"type": "Sequence", "normalizers": [step]}
    return step


HOSTILE = {
    "a pattern that backtracks": (
        {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a|a)*$"}}},
        "pattern.Regex",
    ),
    "a pattern that explodes": (
        {"normalizer": {"type": "Replace", "pattern": {"Regex": "((a{999}){999}){999}"}, "content": ""}},
        "pattern.Regex",
    ),
    "a text doubled ten times": (
        {"normalizer": {"type": "Sequence", "normalizers": [DOUBLING] * 10}},
        "times as long",
    ),
    "a space that becomes a book": ({"normalizer": DOUBLING | {"content": "x" * 10_000}}, "normalizer.content"),
    "normalizers of normalizers": ({"normalizer": nested(40)}, "nested more than"),
    "a hundred steps": ({"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}] * 33}}, "at most 32"),
    "an unknown step": ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}, "normalizer.type"),
    "a step that is a list": ({"decoder": ["Fuse"]}, "decoder"),
    "a type that is a list": ({"decoder": {"type": ["Fuse"]}}, "decoder.type"),
    "an empty pattern": ({"normalizer": DOUBLING | {"pattern": {"String": ""}}}, "pattern.String"),
    "added tokens without end": ({"added_tokens": [{"id": 5, "content": "x"}] * 60_000}, "added_tokens"),
    "an added token of nothing": ({"added_tokens": [{"id": 5, "content": ""}]}, "added_tokens.0.content"),
    "an added token of a huge id": ({"added_tokens": [{"id": 1 << 40, "content": "x"}]}, "added_tokens.0.id"),
    "another model": ({"model": {"type": "WordPiece", "vocab": {"a": 0}, "unk_token": "a"}}, "model.type"),
    "no pieces": ({"model": {"type": "Unigram", "vocab": []}}, "model.vocab"),
    "pieces with ids": ({"model": {"type": "Unigram", "vocab": {"a": 0}}}, "model.vocab"),
    "a piece without its score": ({"model": {"type": "Unigram", "vocab": [["a", 0], ["b"]]}}, "model.vocab.1"),
    "a score that is none": ({"model": {"type": "Unigram", "vocab": [["a", True]]}}, "model.vocab.0"),
    "an endless score": ({"model": {"type": "Unigram", "vocab": [["a", 1e300]]}}, "model.vocab.0"),
    "a piece like a book": ({"model": {"type": "Unigram", "vocab": [["a" * 2000, 0]]}}, "model.vocab.0"),
    "no such piece": ({"model": {"type": "Unigram", "vocab": [["a", 0]], "unk_id": 1}}, "model.unk_id"),
    "lots among pieces": ({"model": {"type": "Unigram", "vocab": [["a", 0]], "alpha": 0.5}}, "model.alpha"),
    "whole words with an id that is a text": ({"model": {"type": "WordLevel", "vocab": {"a": "0"}}}, "model.vocab.a"),
    "no model": ({"model": None}, "model.merges"),
    "ids that are texts": ({"model": {"type": "BPE", "vocab": {"a": "0"}, "merges": []}}, "model.vocab.a"),
    "negative ids": ({"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}, "model.vocab.a"),
    "a merge of one": ({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a"]}}, "model.merges.0"),
    "a merge of unknown tokens": (
        {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "z"]]}},
        "cannot be read",
    ),
    # The library panics: it cuts the prefix off tokens that are shorter.
    "a prefix longer than tokens": (
        {
            "model": {
                "type": "BPE",
                "vocab": {"a": 0, "aa": 1},
                "merges": [["a", "a"]],
                "continuing_subword_prefix": "prefix",
            }
        },
        "continuing_subword_prefix",
    ),
    "lots are drawn": ({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [], "dropout": 0.5}}, "dropout"),
    "an unknown token nobody knows": (
        {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [], "unk_token": "?"}},
        "unk_token",
    ),
}


@pytest.mark.parametrize(("change", "field"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_files_are_one_sentence_that_names_the_field(tmp_path, change, field, capfd):
    path = write(tmp_path, small() | change)
    with pytest.raises(ModelError) as raised:
        Tokenizer.open(path)
    assert str(path) in str(raised.value) and field in str(raised.value) and len(str(raised.value)) < 500
    assert capfd.readouterr().err == ""  # nor does the library say anything of its own


def test_a_panic_of_the_library_is_a_model_error(tmp_path):
    class PanicException(BaseException):
        pass

    with pytest.raises(ModelError, match="tokenizer.json"), reading(tmp_path / "tokenizer.json"):
        raise PanicException("attempt to subtract with overflow")
    with pytest.raises(KeyboardInterrupt), reading(tmp_path / "tokenizer.json"):
        raise KeyboardInterrupt
