"""Find objects that the user names, or whatever there is, as boxes."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmcli.errors import UsageError
from mmcli.models.offered import any_of
from mmcli.tasks.task import Request

if TYPE_CHECKING:
    from mmcli.models.family import Processor


@dataclass(frozen=True, kw_only=True)
class DetectRequest(Request):
    """`words` names what to find; several objects are separated by ` ; `. With `every` nothing is named."""

    task = "detect"
    default_max_tokens = 512
    finds_objects = True

    every: bool = False  # find whatever there is

    @property
    def asked(self) -> str:
        return "detect:all" if self.every else self.task

    def require(self, processor: "Processor", model: str) -> None:
        """Raise UsageError if everything is to be found by a model that finds what is named."""
        super().require(processor, model)
        if self.every and not processor.capabilities.finds_all:
            do = f'Name objects, such as "cat ; dog", or use {any_of("finds_all")}'
            raise UsageError(f"{model} finds what is named, so --all cannot be used", do)


def tidy_labels(words: str) -> str:
    """`"cat;dog ; "` → `"cat ; dog"`, the form that models were trained on."""
    return " ; ".join(part for part in (part.strip() for part in words.split(";")) if part)
