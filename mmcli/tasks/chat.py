"""Answer a question about pictures, or without one where the model can."""

from dataclasses import dataclass

from mmcli.tasks.task import Request


@dataclass(frozen=True, kw_only=True)
class ChatRequest(Request):
    """`words` is the question."""

    task = "chat"
    default_max_tokens = 256
    about_images = False
