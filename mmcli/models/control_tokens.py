"""Control tokens, and how typed text is kept from spelling them."""

import re
from collections.abc import Collection

from mmcli.hub.tokenizer import Tokenizer

GUARD = "\ufdd0"  # no character of Unicode's: it stands inside names of control tokens that were merely typed
NO_CHARACTERS = re.compile(f"[{GUARD}\ud800-\udfff]")  # the latter stand for bytes that were no UTF-8


class ControlTokens:
    """The special tokens of a tokenizer, and others of a family's: no text of a user or a model holds them.

    Typed text that spells one is read letter by letter: nobody opens a turn, or makes room for an image, by writing
    about it.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        ids: Collection[int] = (),
        names: Collection[str] = (),
        stop_ids: frozenset[int] = frozenset(),
    ):
        """`ids` and `names` are of control tokens that the tokenizer does not call special.

        Of `stop_ids` those count that the tokenizer has beside its vocabulary: another is a piece of ordinary text, as
        are line breaks wherever they stand, which ends an answer and may well be part of a question.
        """
        added = tokenizer.get_added_tokens_decoder()
        special = {id for id, one in added.items() if one.special or (id in stop_ids and one.content.strip())}
        named = {tokenizer.token_to_id(name) for name in names}
        known = {id: tokenizer.id_to_token(id) for id in special | named | set(ids) if id is not None}
        self.tokenizer = tokenizer
        self.ids = frozenset(id for id, name in known.items() if name)
        self._starts = _start_of(sorted(name for name in known.values() if name))

    def typed(self, text: str) -> str:
        """Typed text as it may stand in what `encode` reads: every place where a control token begins is marked."""
        text = NO_CHARACTERS.sub("", text)
        return text if self._starts is None else self._starts.sub(rf"\1{GUARD}", text)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, parted where `typed` marked it."""
        text = text.encode("utf-8", "replace").decode()  # a template may write halves of characters
        return [id for piece in text.split(GUARD) for id in self.tokenizer.encode(piece).ids]


def _start_of(names: list[str]) -> re.Pattern[str] | None:
    """Matches the first character of every place where one of these names stands, also where two overlap."""
    if not names:
        return None
    first = "".join(sorted({re.escape(name[0]) for name in names}))  # asked first, for there may be thousands of names
    return re.compile(f"(?=[{first}])(?={'|'.join(map(re.escape, names))})(.)", re.DOTALL)
