"""Say what an image shows, in a sentence or several."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmcli.errors import UsageError
from mmcli.tasks.task import Request

if TYPE_CHECKING:
    from mmcli.models.family import Processor
    from mmcli.models.loaded import Loaded

DETAILS = ("low", "medium", "high")


@dataclass(frozen=True, kw_only=True)
class CaptionRequest(Request):
    """`words` is unused."""

    task = "caption"
    default_max_tokens = 128

    detail: str | None = None  # one of DETAILS; None: the model's usual caption

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.detail is not None and self.detail not in DETAILS:
            raise UsageError(f"There is no detail {self.detail!r}", "Choose low, medium or high")
        if self.detail is not None and self.prompt is not None:
            raise UsageError("--detail cannot be used with --prompt", "Leave one out")

    @property
    def asked(self) -> str:
        return self.task if self.detail is None else f"{self.task}:{self.detail}"

    def require(self, processor: "Processor", model: str) -> None:
        """Raise UsageError if the model has no prompt for captions as long as that."""
        super().require(processor, model)
        known = processor.capabilities.details
        if self.detail is not None and self.detail not in known:
            has = f"Its captions are of the detail {' or '.join(known)}" if known else "Leave it out: it has one length"
            raise UsageError(f"{model} knows no captions of {self.detail} detail", has)

    def beams_for(self, loaded: "Loaded") -> int:
        own = self.beams is None and self.prompt is None and self.temperature == 0
        return max(super().beams_for(loaded), loaded.processor.capabilities.caption_beams if own else 1)
