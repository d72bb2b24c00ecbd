"""What the tasks have in common: a request is a question to a model, worded by the model's own processor."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mmcli.errors import ModelError

if TYPE_CHECKING:
    from mmcli.models.family import Processor


@dataclass(frozen=True, kw_only=True)
class Request:
    """One task with everything that decides its answer, apart from the pictures and the model.

    `prompt` replaces the words that the task would use; the fields below it govern the draw of tokens and the reading
    of places in the answer.
    """

    task: ClassVar[str]
    default_max_tokens: ClassVar[int]
    finds_objects: ClassVar[bool] = False  # the answer is made of <loc> tokens
    finds_masks: ClassVar[bool] = False  # … and of <seg> tokens

    words: str = ""
    prompt: str | None = None
    max_tokens: int | None = None
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None
    loc_divisor: int = 1023
    token_ids: bool = False

    @property
    def token_limit(self) -> int:
        """How many tokens an answer may have."""
        return self.max_tokens or self.default_max_tokens

    def prompt_for(self, processor: "Processor") -> str:
        """The text that goes to the model."""
        prompt = self.prompt if self.prompt is not None else processor.task_prompt(self.task, self.words)
        return text_of(prompt)

    def require(self, processor: "Processor", model: str) -> None:
        """Raise ModelError if the model lacks what the task is made of."""
        if hasattr(processor, "window_seconds"):
            raise ModelError(f"{model} hears and does not see", "Use mmcli transcribe with it, or a model that sees")
        if self.finds_objects and processor.vocabulary is None:
            raise ModelError(
                f"{model} cannot {self.task}: its vocabulary has no location tokens",
                "Use nano or a PaliGemma checkpoint, or ask in words with mmcli chat",
            )


def text_of(words: str) -> str:
    """Words as a tokenizer can read them: a shell's arguments may hold bytes that are no characters."""
    return words.encode("utf-8", "replace").decode()
