"""What the special tokens of a Whisper checkpoint are, and what its generation_config.json says about decoding."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from mmcli.errors import ModelError
from mmcli.hub.json_files import read_json
from mmcli.models.whisper.config import WhisperConfig

TIME_STEP = 0.02  # seconds from one time token to the next
LATEST_FIRST_TIME = 50  # by default the first time of a window is at most 50 × 0.02 s
MULTILINGUAL_ROWS = 51865  # a published vocabulary of at least this many rows has languages


@dataclass(frozen=True)
class Special:
    """Ids of the tokens that steer Whisper; `None` where a checkpoint has no such token."""

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
    try:
        if path.is_file():
            tokenizer = Tokenizer.from_file(str(path))
        else:
            path = folder / "vocab.json"
            tokenizer = _from_parts(folder)
    except ModelError:
        raise
    except Exception as error:  # the library raises bare Exception for every damage
        raise ModelError(f"{path} cannot be read ({error})", "Download the model again") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _from_parts(folder: Path) -> Tokenizer:
    missing = [name for name in ("vocab.json", "merges.txt") if not (folder / name).is_file()]
    if missing:
        raise ModelError(f"{folder} has neither tokenizer.json nor {' and '.join(missing)}", "Download the model again")
    model = models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    added = read_json(folder / "added_tokens.json") if (folder / "added_tokens.json").is_file() else {}
    tokens = [name for name, _ in sorted(added.items(), key=lambda item: item[1])]
    tokens = [name for name in ("<|endoftext|>",) if name not in added] + tokens
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in tokens])
    return tokenizer


def read_special(folder: Path, tokenizer: Tokenizer, config: WhisperConfig, raw: dict[str, Any]) -> Special:
    """Gather the special tokens from the tokenizer, generation_config.json and, for old files, config.json."""
    path = folder / "generation_config.json"
    settings = read_json(path) if path.is_file() else {}

    def token(*names: str) -> int | None:
        return next((found for name in names if (found := tokenizer.token_to_id(name)) is not None), None)

    no_times = settings.get("no_timestamps_token_id", token("<|notimestamps|>"))
    if no_times is None:
        raise ModelError(f"{folder}: its tokenizer has no <|notimestamps|>", "Download the model again")
    if no_times >= config.vocabulary:
        raise ModelError(f"{folder}: its tokenizer and its weights belong to different models")
    previous, no_speech = token("<|startofprev|>"), token("<|nospeech|>", "<|nocaptions|>")
    multilingual = settings.get("is_multilingual", config.vocabulary >= MULTILINGUAL_ROWS)
    translate, transcribe = token("<|translate|>"), token("<|transcribe|>")
    control = {config.start, translate, transcribe, previous, no_speech, token("<|startoflm|>")}
    heads = settings.get("alignment_heads")
    return Special(
        end=config.end,
        start=config.start,
        languages=_languages(settings, tokenizer, config.start, translate or no_times) if multilingual else {},
        translate=translate,
        transcribe=transcribe,
        previous=previous,
        no_speech=no_speech,
        no_times=no_times,
        suppressed=tuple(sorted({*(_listed(settings, raw, "suppress_tokens")), *control, no_times} - {None})),
        suppressed_first=tuple(_listed(settings, raw, "begin_suppress_tokens")),
        latest_first_time=settings.get("max_initial_timestamp_index") or LATEST_FIRST_TIME,
        alignment_heads=tuple((layer, head) for layer, head in heads) if heads else None,
    )


def _listed(settings: dict[str, Any], raw: dict[str, Any], key: str) -> list[int]:
    """A list of ids; -1 and the like mean none."""
    found = settings[key] if key in settings else raw.get(key)
    return [id for id in found or [] if id >= 0]


def _languages(settings: dict[str, Any], tokenizer: Tokenizer, start: int, after: int) -> dict[str, int]:
    named = settings.get("lang_to_id")
    if named is None:
        named = {tokenizer.id_to_token(id): id for id in range(start + 1, after)}
    return {name[2:-2]: id for name, id in named.items() if name and re.fullmatch(r"<\|[a-z]{2,3}\|>", name)}
