"""What a tokenizer.json may hold: everything that published tokenizers of these families do, and no more.

The library that reads it runs what it says: patterns that never come to an end, replacements that double a text thirty
times over. So a file is looked through before the library sees it.
"""

from collections.abc import Iterator
from pathlib import Path

from mmcli.errors import ModelError
from mmcli.hub.fields import ID, ROWS, Fields
from mmcli.hub.json_files import read_json

LARGEST = 48_000_000  # bytes; Gemma 3n's has 33 million
MOST_STEPS = 32  # of all normalizers, pre-tokenizers and decoders together
MOST_ADDED = 50_000
LONGEST_ADDED = 1000  # characters
LONGEST_TEXT = 100  # characters of what is looked for, or put in its place
MOST_GROWTH = 32  # times as long as it was a text may become

NORMALIZERS = {
    "Sequence", "Replace", "Prepend", "Strip", "StripAccents", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "ByteLevel",
}  # fmt: skip
PRE_TOKENIZERS = {
    "Sequence", "Split", "ByteLevel", "Metaspace", "Whitespace", "WhitespaceSplit", "Digits", "Punctuation",
}  # fmt: skip
DECODERS = {"Sequence", "Replace", "ByteLevel", "Metaspace", "ByteFallback", "Fuse", "Strip"}
STEPS = {"normalizer": NORMALIZERS, "pre_tokenizer": PRE_TOKENIZERS, "decoder": DECODERS}
LISTS = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "decoder": "decoders"}

# Regular expressions can take for ever on some text; those of published tokenizers do not.
PATTERNS = {
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    *(
        rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        for digits in (r"\p{N}{1,3}", r"\p{N}")
    ),
    r" {2,}",
    r"\s+",
}


def check_tokenizer(path: Path) -> None:
    """Raise ModelError for a tokenizer.json that is damaged, or does what no tokenizer of these families does."""
    whole = Fields(read_json(path, LARGEST), str(path))
    steps = [step for kind in STEPS for step in _steps(whole, kind)]
    if len(steps) > MOST_STEPS:
        raise ModelError(f"{path} has {len(steps)} steps from text to tokens; expected at most {MOST_STEPS}")
    growth = 1.0
    for kind, step in steps:
        growth *= _growth(step) if kind == "normalizer" else 1.0
    if growth > MOST_GROWTH:
        raise ModelError(f"{path} has normalizers that make a text {growth:.3g} times as long")
    _check_added(whole)
    _check_model(whole.part("model"))


def _steps(parent: Fields, kind: str, key: str | None = None) -> Iterator[tuple[str, Fields]]:
    """Every step of one kind, those in sequences one by one, each with its fields checked."""
    key = key or kind
    if parent.get(key) is None:
        return
    step = parent.part(key)
    if step.get("type") not in list(STEPS[kind]):
        raise step.wrong("type", f"one of {', '.join(sorted(STEPS[kind]))}")
    if step.get("type") != "Sequence":
        _check_step(step)
        yield kind, step
        return
    for place, one in enumerate(step.items(LISTS[kind], MOST_STEPS)):
        yield from _steps(Fields({str(place): one}, step.where, path=step.path), kind, str(place))


def _check_step(step: Fields) -> None:
    if step.get("type") in ("Replace", "Split"):
        pattern = step.part("pattern")
        if "Regex" in pattern:
            if pattern.text("Regex") not in PATTERNS:
                raise pattern.wrong("Regex", "one that a published tokenizer has, for others may never come to an end")
        else:
            _short(pattern, "String", 1)
    for key in ("prepend", "content"):
        if key in step:
            _short(step, key, 0)
    for key in ("start", "stop"):
        if key in step:
            step.whole(key, 0, LONGEST_TEXT)


def _short(fields: Fields, key: str, least: int) -> str:
    text = fields.text(key)
    if not least <= len(text) <= LONGEST_TEXT:
        raise fields.wrong(key, f"a text of {least} to {LONGEST_TEXT} characters")
    return text


def _growth(step: Fields) -> float:
    """How many times as long a normalizer can make a text."""
    if step.get("type") != "Replace":
        return 1.0
    pattern = step.part("pattern").get("String") or " "
    return max(1.0, len(step.text("content").encode()) / len(pattern.encode()))


def _check_added(whole: Fields) -> None:
    if "added_tokens" not in whole:
        return
    for place, raw in enumerate(whole.items("added_tokens", MOST_ADDED)):
        token = Fields(raw, whole.where, path=f"added_tokens.{place}.")
        token.whole("id", *ID)
        if not 1 <= len(token.text("content")) <= LONGEST_ADDED:
            raise token.wrong("content", f"a text of 1 to {LONGEST_ADDED} characters")


def _check_model(model: Fields) -> None:
    """Whole words, likely pieces, or byte-pair encoding without what makes the library sample, fail, or cut short
    tokens."""
    if model.get("type") == "WordLevel":
        check_vocabulary(model, "vocab")
        return
    if model.get("type") == "Unigram":
        _check_pieces(model)
        return
    if model.get("type") not in ("BPE", None):  # old files do not name it
        raise model.wrong("type", "'BPE', 'Unigram' or 'WordLevel'")
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key) not in (None, ""):
            raise model.wrong(key, "none")
    if model.get("dropout") is not None:
        model.number("dropout", 0, 0)
    vocabulary = check_vocabulary(model, "vocab")
    if model.get("unk_token") is not None and model.text("unk_token") not in vocabulary.raw:
        raise model.wrong("unk_token", "a token of the vocabulary")
    merges = model.get("merges")
    if not isinstance(merges, list):
        raise model.wrong("merges", "a list")
    for place, merge in enumerate(merges):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) and part for part in pair):
            raise Fields({str(place): merge}, model.where, path=f"{model.path}merges.").wrong(str(place), "two tokens")


def _check_pieces(model: Fields) -> None:
    """A Unigram model of sentencepiece: pieces, each with its log-probability, by their ids."""
    pieces = model.items("vocab", ROWS[1])
    if not pieces:
        raise model.wrong("vocab", "at least one piece")
    for place, piece in enumerate(pieces):
        whole = isinstance(piece, list) and len(piece) == 2 and isinstance(piece[0], str)
        if not whole or len(piece[0]) > LONGEST_ADDED or not _is_score(piece[1]):
            found = Fields({str(place): piece}, model.where, path=f"{model.path}vocab.")
            raise found.wrong(str(place), "a piece of text with its log-probability")
    for key in ("alpha", "nbest_size"):  # which would make the library sample
        model.require(key, None, 0)
    if model.get("unk_id") is not None:
        model.whole("unk_id", 0, len(pieces) - 1)


def _is_score(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e6 <= value <= 1e6


def check_vocabulary(parent: Fields, key: str) -> Fields:
    """The fields of an object that gives tokens their ids. Raises ModelError for ids that are none."""
    vocabulary = parent.part(key)
    low, high = ID
    for token, id in vocabulary.raw.items():
        if type(id) is not int or not low <= id <= high:
            raise vocabulary.wrong(token, "an id")
    return vocabulary
