"""The text of a SmolVLM: what stands around the places of an image, and turns where a checkpoint has no template."""

from collections.abc import Sequence
from dataclasses import dataclass

from mmcli.models.chat_template import Message
from mmcli.models.smolvlm.tiles import Grid

BEGIN, END_OF_TURN = "<|im_start|>", "<end_of_utterance>"
NAMED_TILES = 6  # rows and columns that have tokens; names beyond are spelt out


@dataclass(frozen=True)
class ImageMarks:
    """Tokens by name: of a place of an image, and of what stands around places."""

    place: str = "<image>"
    around: str = "<fake_token_around_image>"
    whole: str = "<global-img>"

    @property
    def names(self) -> list[str]:
        """Those of all tiles with tokens, too."""
        each = range(1, NAMED_TILES + 1)
        return [self.place, self.around, self.whole, *(f"<row_{row}_col_{column}>" for row in each for column in each)]

    def opened(self, grid: Grid, places: int) -> str:
        """What an image's placeholder becomes: every tile's number and its `places`, row by row, then the whole's."""
        soft = self.place * places
        rows = (
            "".join(f"{self.around}<row_{row}_col_{column}>{soft}" for column in range(1, grid.columns + 1)) + "\n"
            for row in range(1, grid.rows + 1)
        )
        tiles = "".join(rows)
        return f"{tiles}{chr(10) if tiles else ''}{self.around}{self.whole}{soft}{self.around}"


def own_layout(messages: Sequence[Message], place: str) -> str:
    """The turns as SmolVLM was trained on them; `place` stands for an image. Behind a question the model writes."""
    text = BEGIN
    for message in messages:
        parts = message["content"]
        space = "" if parts and parts[0]["type"] == "image" else " "
        content = "".join(place if part["type"] == "image" else part["text"] for part in parts)
        text += f"{message['role'].capitalize()}:{space}{content}{END_OF_TURN}\n"
    return text if messages and messages[-1]["role"] == "assistant" else f"{text}Assistant:"
