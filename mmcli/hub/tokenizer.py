"""A checkpoint's tokenizer.json, and which of its tokens begin and end a text."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tokenizers

from mmcli.errors import ModelError, raise_if_interrupted
from mmcli.hub.fields import Fields
from mmcli.hub.json_files import read_json, read_text
from mmcli.hub.tokenizer_file import LARGEST, check_tokenizer


class Tokenizer:
    """A tokenizer of the library of that name, which neither pads nor cuts nor adds tokens; it raises ModelError only.

    It adds nothing because its file cannot be trusted to: processors put tokens in front of a text themselves.
    """

    def __init__(self, inner: tokenizers.Tokenizer, path: Path):
        self._inner = inner
        self._path = path
        with reading(path):
            inner.no_padding()
            inner.no_truncation()

    @classmethod
    def open(cls, path: Path) -> "Tokenizer":
        """Read a tokenizer.json. Raises ModelError for one that is damaged, or is no tokenizer of these families."""
        check_tokenizer(path)
        with reading(path):
            return cls(tokenizers.Tokenizer.from_str(read_text(path, LARGEST)), path)

    def encode(self, text: str, add_special_tokens: bool = False) -> tokenizers.Encoding:
        """Token ids (`.ids`) of a text; control tokens that are spelled in it count as such."""
        with reading(self._path):
            return self._inner.encode(text, add_special_tokens=add_special_tokens)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        with reading(self._path):
            return self._inner.decode(ids, skip_special_tokens=skip_special_tokens)

    def token_to_id(self, token: str) -> int | None:
        with reading(self._path):
            return self._inner.token_to_id(token)

    def id_to_token(self, id: int) -> str | None:
        with reading(self._path):
            return self._inner.id_to_token(id)

    def token_of(self, id: int) -> str:
        """As `id_to_token` of an id that config.json names. Raises ModelError where there is no such token."""
        token = self.id_to_token(id)
        if token is None:
            raise ModelError(
                f"In {self._path.parent}, config.json names the token {id}, which {self._path.name} does not have",
                "They are of different models; download the model again",
            )
        return token

    def add_special_tokens(self, tokens: Sequence[str]) -> None:
        """Give tokens that the file lacks the next ids, as a vendor's code does when it loads the model."""
        with reading(self._path):
            self._inner.add_special_tokens([tokenizers.AddedToken(token, normalized=False) for token in tokens])

    def get_vocab_size(self) -> int:
        with reading(self._path):
            return self._inner.get_vocab_size()

    def get_added_tokens_decoder(self) -> dict[int, tokenizers.AddedToken]:
        with reading(self._path):
            return self._inner.get_added_tokens_decoder()

    def add_control(self, names: Sequence[str]) -> None:
        """Make names control tokens; those that it lacks come behind its last token, in their order."""
        with reading(self._path):
            self._inner.add_special_tokens([tokenizers.AddedToken(name, normalized=False) for name in names])

    def check_rows(self, ids: Sequence[int], rows: int) -> None:
        """Raise ModelError unless a model whose table has so many rows knows all of these ids."""
        if ids and max(ids) >= rows:
            raise ModelError(
                f"The tokenizer has a token ({self.id_to_token(max(ids))}) that the model has no row for",
                "tokenizer.json and the weights are of different models; download the model again",
            )


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever the library raises about a file, its panics included, into ModelError."""
    try:
        yield
    except ModelError:
        raise
    except BaseException as error:  # it raises bare Exception for every damage; panics are no Exception at all
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise_if_interrupted(error)
        raise ModelError(f"{path} cannot be read ({shown_error(error)})", "Download the model again") from error


def shown_error(error: BaseException) -> str:
    """The first line of an error's words, not too long."""
    words = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return words if len(words) <= 200 else f"{words[:200]}…"


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer in `folder`. Raises ModelError."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        only = " (tokenizer.model alone is not enough)" if (folder / "tokenizer.model").is_file() else ""
        raise ModelError(f"{folder} has no tokenizer.json{only}", "Use a revision of the model that has it")
    return Tokenizer.open(path)


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
    path = folder / "generation_config.json"
    if not path.is_file():
        return otherwise
    settings = Fields(read_json(path), str(path))
    return settings.ids("eos_token_id") if "eos_token_id" in settings else otherwise
