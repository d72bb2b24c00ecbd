"""Answer a question about images, or without one where the model can."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmcli.errors import ModelError
from mmcli.tasks.task import Request

if TYPE_CHECKING:
    from mmcli.models.family import Processor


@dataclass(frozen=True, kw_only=True)
class ChatRequest(Request):
    """`words` is the question."""

    task = "chat"
    default_max_tokens = 256
    about_images = False

    def require(self, processor: "Processor", model: str) -> None:
        """Raise ModelError if the model knows prompts of its own alone, and none is given."""
        super().require(processor, model)
        able = processor.capabilities
        if not able.questions and self.prompt is None:
            *first, last = (f"mmcli {task}" for task in able.tasks)
            do = f"It can do {', '.join(first)} and {last}" if first else f"It can do {last}"
            raise ModelError(f"{model} answers no questions", do)
