"""Text that grows with each token."""

from collections.abc import Callable


class Pieces:
    """Token ids, one after another → the text that each adds, without bytes that are not a whole character yet.

    `clean` is applied to the text as it is so far: it must leave the beginning of a text as it left that alone.
    """

    def __init__(self, decode: Callable[[list[int]], str], clean: Callable[[str], str] = str):
        self._decode, self._clean = decode, clean
        self._ids: list[int] = []
        self.given_out = 0  # characters that were given out

    def add(self, token: int) -> str:
        """What one more token adds; "" while it is half a character or half a line break."""
        self._ids.append(token)
        text = self._decode(self._ids)
        return "" if text.endswith(("\N{REPLACEMENT CHARACTER}", "\r")) else self._new(text)

    def rest(self) -> str:
        """What was held back, at the end."""
        return self._new(self._decode(self._ids))

    def _new(self, text: str) -> str:
        text = self._clean(text)
        new, self.given_out = text[self.given_out :], max(self.given_out, len(text))
        return new
