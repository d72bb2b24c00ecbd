"""Say in a sentence what a picture shows."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmcli.errors import UsageError
from mmcli.tasks.task import Request

if TYPE_CHECKING:
    from mmcli.models.loaded import Loaded


@dataclass(frozen=True, kw_only=True)
class CaptionRequest(Request):
    """`words` is unused."""

    task = "caption"
    default_max_tokens = 128

    beams: int | None = None  # None: what the model is best with, for its own prompt

    def __post_init__(self) -> None:
        if (self.beams or 1) > 1 and self.temperature > 0:
            raise UsageError("--beams cannot be used with --temperature", "Leave one out")

    def beams_for(self, loaded: "Loaded") -> int:
        if self.beams is not None:
            return self.beams
        own = self.prompt is None and self.temperature == 0
        return loaded.processor.capabilities.caption_beams if own else 1
