"""What the special tokens of a Whisper checkpoint are, and what its generation_config.json says about decoding."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken

from mmcli.errors import ModelError
from mmcli.hub.fields import ID, Fields
from mmcli.hub.json_files import read_json, read_text
from mmcli.hub.tokenizer import Tokenizer, reading
from mmcli.hub.tokenizer_file import check_vocabulary
from mmcli.models.stacks import StackConfig
from mmcli.models.whisper.config import WhisperConfig

TIME_STEP = 0.02  # seconds from one time token to the next
LATEST_FIRST_TIME = 50  # by default the first time of a window is at most 50 × 0.02 s
LARGEST_MERGES = 16_000_000  # bytes of merges.txt; published ones have half a million
MULTILINGUAL_ROWS = 51865  # a published vocabulary of at least this many rows has languages


@dataclass(frozen=True)
class Special:
    """Ids of Whisper's control tokens; `None` where a checkpoint has no such token."""

    end: int
    start: int
    languages: dict[str, int]  # "en" → id; empty for English-only checkpoints
    translate: int | None
    transcribe: int | None
    previous: int | None
    no_speech: int | None
    no_times: int
    suppressed: tuple[int, ...]  # never written
    suppressed_first: tuple[int, ...]  # never written as the first token
    latest_first_time: int
    alignment_heads: tuple[tuple[int, int], ...] | None  # (layer, head); None: the checkpoint names none

    @property
    def times(self) -> int:
        """The token of 0.00 s; the others follow it."""
        return self.no_times + 1


def read_tokenizer(folder: Path) -> Tokenizer:
    """tokenizer.json, or one built from vocab.json, merges.txt and added_tokens.json. Raises ModelError."""
    path = folder / "tokenizer.json"
    return Tokenizer.open(path) if path.is_file() else _from_parts(folder)


def _from_parts(folder: Path) -> Tokenizer:
    vocabulary, merges, more = (folder / name for name in ("vocab.json", "merges.txt", "added_tokens.json"))
    missing = [path.name for path in (vocabulary, merges) if not path.is_file()]
    if missing:
        raise ModelError(f"{folder} has neither tokenizer.json nor {' and '.join(missing)}", "Download the model again")
    lines = [line.rstrip("\r") for line in read_text(merges, LARGEST_MERGES).split("\n")]
    pairs: list[Any] = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    ids = read_json(vocabulary)
    check_vocabulary(Fields({"vocab": ids}, str(vocabulary)), "vocab")
    added = Fields(read_json(more) if more.is_file() else {}, str(more)).raw
    for name in added:
        Fields(added, str(more)).whole(name, *ID)
    tokens = [name for name in ("<|endoftext|>",) if name not in added] + sorted(added, key=added.__getitem__)
    with reading(vocabulary):
        tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(ids, pairs))
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = tokenizers.decoders.ByteLevel()
        tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in tokens])
    return Tokenizer(tokenizer, vocabulary)


def read_special(folder: Path, tokenizer: Tokenizer, config: WhisperConfig, raw: dict[str, Any]) -> Special:
    """Gather the special tokens from the tokenizer, generation_config.json and, for old files, config.json."""
    path = folder / "generation_config.json"
    settings = Fields(read_json(path) if path.is_file() else {}, str(path))

    def token(*names: str) -> int | None:
        found = next((found for name in names if (found := tokenizer.token_to_id(name)) is not None), None)
        return found if found is None or found < config.vocabulary else None

    no_times = settings.maybe_whole("no_timestamps_token_id", *ID)
    no_times = tokenizer.token_to_id("<|notimestamps|>") if no_times is None else no_times
    if no_times is None:
        raise ModelError(f"{folder}: its tokenizer has no <|notimestamps|>", "Download the model again")
    if no_times >= config.vocabulary - 1:  # times must follow it
        raise ModelError(f"{folder}: its tokenizer and its weights belong to different models")
    previous, no_speech = token("<|startofprev|>"), token("<|nospeech|>", "<|nocaptions|>")
    given = "is_multilingual" in settings
    multilingual = settings.flag("is_multilingual") if given else config.vocabulary >= MULTILINGUAL_ROWS
    translate, transcribe = token("<|translate|>"), token("<|transcribe|>")
    named = (config.start, translate, transcribe, previous, no_speech, token("<|startoflm|>"), no_times)
    control = {id for id in named if id is not None}
    older = Fields(raw, f"{folder / 'config.json'}")
    return Special(
        end=config.end,
        start=config.start,
        languages=_languages(settings, tokenizer, config, translate or no_times) if multilingual else {},
        translate=translate,
        transcribe=transcribe,
        previous=previous,
        no_speech=no_speech,
        no_times=no_times,
        suppressed=tuple(sorted({*_listed(settings, older, "suppress_tokens", config), *control})),
        suppressed_first=_listed(settings, older, "begin_suppress_tokens", config),
        latest_first_time=settings.maybe_whole("max_initial_timestamp_index", *ID) or LATEST_FIRST_TIME,
        alignment_heads=_alignment_heads(settings, config.decoder),
    )


def _listed(settings: Fields, older: Fields, key: str, config: WhisperConfig) -> tuple[int, ...]:
    """A list of ids; -1 and the like mean none."""
    fields = settings if key in settings.raw else older
    if key not in fields:
        return ()
    ids = fields.wholes(key, -ID[1], config.vocabulary - 1, longest=config.vocabulary)
    return tuple(id for id in ids if id >= 0)


def _alignment_heads(settings: Fields, decoder: StackConfig) -> tuple[tuple[int, int], ...] | None:
    """Pairs of a layer and a head; None where there are none."""
    if not settings.get("alignment_heads"):
        return None
    pairs = settings.items("alignment_heads", decoder.depth * decoder.heads)
    for pair in pairs:
        known = isinstance(pair, list) and len(pair) == 2 and all(type(number) is int for number in pair)
        if not known or not (0 <= pair[0] < decoder.depth and 0 <= pair[1] < decoder.heads):
            limits = f"{decoder.depth} layers and {decoder.heads} heads"
            raise settings.wrong("alignment_heads", f"a list of pairs, each a layer and a head of {limits}")
    return tuple((layer, head) for layer, head in pairs)


def _languages(settings: Fields, tokenizer: Tokenizer, config: WhisperConfig, after: int) -> dict[str, int]:
    if "lang_to_id" in settings:
        named = settings.part("lang_to_id")
        ids = {name: named.whole(name, 0, config.vocabulary - 1) for name in named.raw}
    else:
        ids = {tokenizer.id_to_token(id): id for id in range(config.start + 1, after)}
    return {name[2:-2]: id for name, id in ids.items() if name and re.fullmatch(r"<\|[a-z]{2,3}\|>", name)}
