"""A checkpoint's tokenizer.json, and which of its tokens begin and end a text."""

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from mmcli.errors import ModelError
from mmcli.hub.json_files import read_json


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer in `folder`; it neither pads nor cuts, whatever its file was last used for. Raises ModelError."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        only = " (tokenizer.model alone is not enough)" if (folder / "tokenizer.model").is_file() else ""
        raise ModelError(f"{folder} has no tokenizer.json{only}", "Use a revision of the model that has it")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for every damage
        raise ModelError(f"{path} cannot be read ({error})", "Download the model again") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def named_tokens(folder: Path) -> dict[str, str]:
    """The tokens that tokenizer_config.json names, such as "bos_token" → "<bos>"; none where there is no such file."""
    if not (folder / "tokenizer_config.json").is_file():
        return {}
    raw = read_json(folder / "tokenizer_config.json")
    more = raw.get("extra_special_tokens")
    raw = raw | more if isinstance(more, dict) else raw
    found = {key: _text(value) for key, value in raw.items() if key.endswith("_token")}
    return {key: text for key, text in found.items() if text is not None}


def _text(value: Any) -> str | None:
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else None


def begin_id(folder: Path, tokenizer: Tokenizer, otherwise: int) -> int:
    """The token that begins a text: what tokenizer_config.json names, else what config.json numbers."""
    text = named_tokens(folder).get("bos_token")
    number = tokenizer.token_to_id(text) if text else None
    return otherwise if number is None else number


def stop_ids(folder: Path, otherwise: frozenset[int]) -> frozenset[int]:
    """The tokens that end an answer: what generation_config.json says, else what config.json says."""
    if not (folder / "generation_config.json").is_file():
        return otherwise
    stop = read_json(folder / "generation_config.json").get("eos_token_id")
    return otherwise if stop is None else frozenset(stop if isinstance(stop, list) else [stop])
