"""Tokenizer files that take time or memory without end, or do what their readers do not expect."""

import random
from typing import Any

BACKTRACKING = ("(a|a)*$", "(x+x+)+y", r"(\w+\s?)*!", "^(([a-z])+.)+[A-Z]([a-z])+$", "(?=(a+))a*b\\1")
EXPLODING = (
    "((a{999}){999}){999}",
    "(" * 5000 + ")" * 5000,
    "a{1,100000}",
    "[",
    "(?P<",
    "\\",
    "",
    "(?<!a+)b",
    "x" * 1_000_000,
)
STEPS: tuple[Any, ...] = (
    {"type": "Replace", "pattern": {"String": " "}, "content": "  " * 20},
    {"type": "Precompiled", "precompiled_charsmap": "AAAA"},
    {"type": "Replace", "pattern": {"String": ""}, "content": "x"},
    {"type": "Prepend", "prepend": "x" * 1000},
    {"type": "NFKD"},
    {"type": "Strip", "content": "a", "start": 1 << 62, "stop": 1},
    {"type": "Split"},
    {"type": "Metaspace", "replacement": "ab"},
    {"type": "ByteLevel"},
    {"type": "Split", "pattern": {"String": "a"}, "behavior": "Isolated", "invert": 3},
    {"type": "Fuse"},
    {"type": "CTC", "pad_token": "a", "word_delimiter_token": "b", "cleanup": True},
    {"type": "Lowercase"},
    {"type": 3},
    {},
    [],
    {"type": "Digits", "individual_digits": "x"},
    {"type": "UnicodeScripts"},
    {"type": "BPEDecoder", "suffix": ""},
    None,
    "NFC",
)
LISTS = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "decoder": "decoders"}


def damage_tokenizer(rng: random.Random, content: dict[str, Any]) -> dict[str, Any]:
    """The content of a tokenizer.json with one thing in it that is hostile."""
    return rng.choice((_steps, _steps, _pattern, _pattern, _model, _model, _added, _rest))(rng, content)


def _steps(rng: random.Random, content: dict[str, Any]) -> dict[str, Any]:
    kind = rng.choice(list(LISTS))
    step = rng.choice(STEPS)
    if rng.random() < 0.3:
        for _ in range(rng.choice((2, 30, 200))):
            step = {"type": "Sequence", LISTS[kind]: [step]}
    elif rng.random() < 0.5:
        step = {"type": "Sequence", LISTS[kind]: [step] * rng.choice((1, 2, 8, 30, 10_000))}
    return content | {kind: step}


def _pattern(rng: random.Random, content: dict[str, Any]) -> dict[str, Any]:
    pattern = {"Regex": rng.choice(BACKTRACKING + EXPLODING)}
    if rng.random() < 0.5:
        return content | {
            "pre_tokenizer": {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
        }
    kind = rng.choice(("normalizer", "decoder"))
    return content | {kind: {"type": "Replace", "pattern": pattern, "content": "x"}}


def _model(rng: random.Random, content: dict[str, Any]) -> dict[str, Any]:
    model = dict(content["model"])
    if model.get("type") == "Unigram":
        return content | {"model": model | _pieces(rng, list(model["vocab"]))}
    vocabulary, merges = dict(model["vocab"]), list(model["merges"])
    key, value = rng.choice(
        (
            ("type", rng.choice(("Unigram", "WordPiece", "WordLevel", "X", None, 3, []))),
            ("dropout", rng.choice((0.5, 2, -1, "x", float("nan")))),
            ("unk_token", rng.choice(("nobody", 3, [], "<unk>"))),
            ("continuing_subword_prefix", rng.choice(("##", "x" * 1000, 3))),
            ("end_of_word_suffix", rng.choice(("</w>", "x" * 1000, 3))),
            ("fuse_unk", rng.choice(("x", 3, True))),
            ("byte_fallback", True),
            (
                "vocab",
                vocabulary
                | {
                    rng.choice(("", "x", "\ud800", "a" * 1_000_000)): rng.choice(
                        (-1, 0, 1 << 31, 1 << 40, "0", None, 0.5)
                    )
                },
            ),
            ("vocab", {f"t{i}": i for i in range(rng.choice((0, 1, 600_000)))}),
            ("vocab", {token: 0 for token in vocabulary}),
            ("vocab", list(vocabulary)),
            (
                "merges",
                merges + [rng.choice((["a"], ["a", "nobody"], "a b c", "", 3, None, ["a", 3], [[], []], ["", ""]))],
            ),
            ("merges", [merges[0]] * 700_000 if merges else []),
            ("merges", merges[::-1]),
            ("merges", {}),
        )
    )
    return content | {"model": model | {key: value}}


def _pieces(rng: random.Random, pieces: list[Any]) -> dict[str, Any]:
    """Wrong fields of a model of likely pieces."""
    piece = rng.choice(("x", "", "\ud800", "a" * 1_000_000, 3, None, []))
    score = rng.choice((0, -1e300, 1e300, float("nan"), float("inf"), "0", None, True, 10**400))
    key, value = rng.choice(
        (
            ("type", rng.choice(("BPE", "WordPiece", "X", None, 3))),
            ("vocab", [*pieces, [piece, score]]),
            ("vocab", [*pieces, rng.choice((["x"], "x", [], ["x", 0, 0], None))]),
            ("vocab", rng.choice(([], {}, None, pieces[:1], pieces[::-1], [["x", 0]] * 600_000))),
            ("vocab", [[name, 0] for name, _ in pieces]),
            ("unk_id", rng.choice((-1, len(pieces), 1 << 40, None, "0", 0.5))),
            ("byte_fallback", rng.choice((False, None, "x", 3))),
            ("alpha", rng.choice((0.5, "x"))),
        )
    )
    return {key: value}


def _added(rng: random.Random, content: dict[str, Any]) -> dict[str, Any]:
    added = list(content["added_tokens"])
    one = {
        "id": 3,
        "content": "x",
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }
    change = rng.choice(
        (
            {"content": ""},
            {"content": "x" * 1_000_000},
            {"content": "\ud800"},
            {"content": 3},
            {"id": -1},
            {"id": 1 << 31},
            {"id": 1 << 40},
            {"id": "3"},
            {"id": None},
            {"lstrip": "x"},
            {"normalized": True, "content": " "},
            {"special": None},
        )
    )
    if rng.random() < 0.3:
        return content | {"added_tokens": rng.choice(([], {}, None, "x", [[]], [None], [one] * 200_000, added * 50))}
    added.insert(rng.randrange(len(added) + 1), one | change)
    return content | {"added_tokens": added}


def _rest(rng: random.Random, content: dict[str, Any]) -> dict[str, Any]:
    piece = {"SpecialToken": {"id": "nobody", "type_id": 0}}
    key, value = rng.choice(
        (
            ("truncation", {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 5}),
            (
                "padding",
                {
                    "strategy": {"Fixed": 1 << 40},
                    "direction": "Left",
                    "pad_to_multiple_of": 0,
                    "pad_id": 0,
                    "pad_type_id": 0,
                    "pad_token": "x",
                },
            ),
            (
                "post_processor",
                {"type": "TemplateProcessing", "single": [piece], "pair": [piece], "special_tokens": {}},
            ),
            (
                "post_processor",
                {
                    "type": "TemplateProcessing",
                    "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 10_000,
                    "pair": [],
                    "special_tokens": {},
                },
            ),
            (
                "post_processor",
                {
                    "type": "RobertaProcessing",
                    "sep": ["x", 1 << 31],
                    "cls": ["x", 0],
                    "trim_offsets": True,
                    "add_prefix_space": True,
                },
            ),
            ("version", "9.0"),
            ("version", None),
            ("truncation", 3),
            ("padding", []),
            ("post_processor", "x"),
        )
    )
    return content | {key: value}
