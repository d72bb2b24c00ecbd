"""The layout of conversations that Gemma 3n was trained on, for checkpoints without a chat template."""

from collections.abc import Sequence

from mmcli.errors import ModelError
from mmcli.models.chat_template import Message


def own_layout(messages: Sequence[Message], begin: str, placeholders: dict[str, str]) -> str:
    """The turns as Gemma 3n was trained on them, behind `begin`; `placeholders` stand for an "image" and an "audio".

    What the system says stands before the first question. Behind a question the model writes. Raises ModelError unless
    user and model take turns.
    """

    def content(message: Message, ends: str | None = None) -> str:
        return "".join(placeholders.get(part["type"]) or part["text"].strip(ends) for part in message["content"])

    system, text = "", begin
    if messages and messages[0]["role"] == "system":
        system, messages = content(messages[0], ends="") + "\n\n", messages[1:]
    for place, message in enumerate(messages):
        if message["role"] != ("user", "assistant")[place % 2]:
            raise ModelError("Questions and answers have to take turns, and the user begins")
        name = "user" if message["role"] == "user" else "model"
        text += f"<start_of_turn>{name}\n{system if place == 0 else ''}{content(message)}<end_of_turn>\n"
    answered = bool(messages) and messages[-1]["role"] == "assistant"
    return text if answered else text + "<start_of_turn>model\n"
