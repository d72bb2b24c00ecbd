"""What MiniCPM-V's text holds for an image, and the layout of turns of 1.0 and 2.0, which have no chat template."""

from collections.abc import Sequence

from mmcli.errors import ModelError
from mmcli.models.chat_template import Message
from mmcli.models.slices import Grid

PLACEHOLDER = "(<image>./</image>)"  # in turns, until the image is looked at: all versions' templates pass it on
IMAGE, IMAGE_END = "<image>", "</image>"
SLICE, SLICE_END = "<slice>", "</slice>"
NUMBER, NUMBER_END = "<image_id>", "</image_id>"


def placeholder(number: int | None) -> str:
    """What stands for an image in a turn; `number` counts the images of a conversation, where they have one (2.6)."""
    return PLACEHOLDER if number is None else f"{NUMBER}{number}{NUMBER_END}{PLACEHOLDER}"


def image_marks(grid: Grid | None, own_slice_marks: bool) -> str:
    """The marks of an image in the text: behind each that opens an overview or a slice come its soft tokens."""
    overview = IMAGE + IMAGE_END
    if grid is None:
        return overview
    columns, rows = grid
    if own_slice_marks:
        return overview + "\n".join([(SLICE + SLICE_END) * columns] * rows)
    return overview + SLICE + "\n".join([overview * columns] * rows) + SLICE_END


def own_layout(messages: Sequence[Message], begin: str) -> str:
    """The turns as MiniCPM-V 1.0 and 2.0 were trained on them. Raises ModelError for a text of the system's.

    Source: openbmb/MiniCPM-V and MiniCPM-V-2 `modeling_minicpmv.py` (chat).
    """
    names = {"user": "<用户>", "assistant": "<AI>"}
    text = begin
    for message in messages:
        if message["role"] not in names:
            raise ModelError(
                "MiniCPM-V knows no system text before version 2.5", "Leave out --system, or say it in the question"
            )
        text += names[message["role"]] + message["content"]
    return text + "<AI>"
