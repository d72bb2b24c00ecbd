"""Read the text in an image."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmcli.errors import ModelError
from mmcli.models.offered import any_of
from mmcli.tasks.task import Request

if TYPE_CHECKING:
    from mmcli.models.family import Processor


@dataclass(frozen=True, kw_only=True)
class ReadRequest(Request):
    """`words` is unused. The record's `text` is what was read.

    With `boxes` its `objects` are the pieces of text: each has its words as `label` and its corners as `quad`.
    """

    task = "read"
    default_max_tokens = 1024

    boxes: bool = False

    @property
    def asked(self) -> str:
        return "read:boxes" if self.boxes else "read"

    def require(self, processor: "Processor", model: str) -> None:
        """Raise ModelError if the model was not taught to read, or does not tell where text stands."""
        super().require(processor, model)
        able = processor.capabilities
        if self.prompt is not None:
            return
        if not able.reads_text:
            do = f"Use {any_of('reads_text')}, or leave --model out and have the library of mmcli[read] read"
            raise ModelError(f"{model} cannot read: it was not taught to", do)
        if self.boxes and not able.reads_regions:
            raise ModelError(
                f"{model} reads text, but does not tell where it stands", "Leave out --boxes and --overlay"
            )
