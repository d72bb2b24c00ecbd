"""How OmniLMM reads a conversation: Zephyr's turns behind a fixed sentence.

Read from OpenBMB/MiniCPM-V `omnilmm/train/train_utils.py` (the sentence, who may speak) and `chat.py` (where an image
stands), and from the chat template of HuggingFaceH4/zephyr-7b-beta.
"""

from collections.abc import Sequence

from mmcli.errors import ModelError
from mmcli.models.chat_template import ChatTemplate, Message

# Word for word as in training.
SYSTEM = (
    "You are an artificial intelligence assistant, which gives helpful, detailed, and polite answers to the human's "
    "questions."
)
PLACE, START, END = "<im_patch>", "<im_start>", "<im_end>"
IMAGE_TOKEN = -1  # in a place of an image, in what the model reads: no token has this number
IMAGE = f"{START}{PLACE}{END}"  # of an image in the text; the place stands for all that it takes


def zephyr(messages: Sequence[Message], end: str) -> str:
    """The turns by Zephyr's own template, for checkpoints that come without it. `content` is text here."""
    return "".join(f"<|{one['role']}|>\n{one['content']}{end}\n" for one in messages) + "<|assistant|>\n"


class OmniLMMTemplate(ChatTemplate):
    """A checkpoint's template, which knows text alone, with images and the fixed sentence put in."""

    def text(self, messages: Sequence[Message]) -> str:
        """Behind the token that begins a text. Raises ModelError unless user and model take turns."""
        system = SYSTEM
        if messages and messages[0]["role"] == "system":
            system, messages = _text(messages[0]), messages[1:]
        flat = [{"role": "system", "content": system}]
        for place, message in enumerate(messages):
            if message["role"] != ("user", "assistant")[place % 2]:
                raise ModelError("Questions and answers have to take turns, and the user begins")
            content = _text(message)
            # The reference cuts white space off answers before it shows and remembers them.
            flat.append({"role": message["role"], "content": content.strip() if place % 2 else content})
        return super().text(flat)


def _text(message: Message) -> str:
    """The parts of a turn as one text. A line ends behind an image that a turn begins with, and behind no other."""
    parts = [part["text"] if part["type"] == "text" else IMAGE for part in message["content"]]
    if message["content"] and message["content"][0]["type"] == "image":
        parts[0] += "\n"
    return "".join(parts)
