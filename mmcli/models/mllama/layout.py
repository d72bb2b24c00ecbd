"""The layout of a prompt for checkpoints without a chat template, which go on with a text."""

from collections.abc import Sequence

from mmcli.errors import ModelError
from mmcli.models.chat_template import Message


def own_layout(messages: Sequence[Message], begin: str, place: str) -> str:
    """Its images' `place`s, then `begin`, then its words. Raises ModelError for a conversation."""
    if len(messages) != 1:
        raise ModelError(
            "This checkpoint was not taught to converse: it has no chat template", "Use one whose name ends in Instruct"
        )
    parts = messages[0]["content"]
    images = sum(part["type"] == "image" for part in parts)
    return place * images + begin + "".join(part["text"] for part in parts if part["type"] == "text")
