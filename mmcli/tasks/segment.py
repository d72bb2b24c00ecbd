"""Find objects that the user names, as boxes with masks, or outline what is in boxes that are there already."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mmcli.errors import ModelError
from mmcli.models.offered import any_of
from mmcli.tasks.task import Request

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mmcli.models.family import Processor


@dataclass(frozen=True, kw_only=True)
class SegmentRequest(Request):
    """`words` names what to find; several objects are separated by ` ; `.

    With `from_boxes` nothing is named: each image comes with objects, and of those the request for one image
    (`about`) has the labels as its words.
    """

    task = "segment"
    default_max_tokens = 512
    finds_objects = True
    finds_masks = True

    from_boxes: bool = False  # outline what was found already

    def about(self, labels: "Iterable[str]") -> "SegmentRequest":
        """The request for one image in which objects of these labels were found."""
        return replace(self, words=" ; ".join(dict.fromkeys(label for label in labels if label)))

    def prompt_for(self, processor: "Processor") -> str:
        return "" if self.from_boxes and not self.words else super().prompt_for(processor)

    def require(self, processor: "Processor", model: str) -> None:
        """Raise ModelError if boxes that are given are to be outlined by a model that cannot."""
        super().require(processor, model)
        if self.from_boxes and not processor.capabilities.outlines_boxes:
            do = f"Use {any_of('outlines_boxes')}, or name objects and leave --from-boxes out"
            raise ModelError(f"{model} outlines what it finds itself, and no boxes that are given", do)
