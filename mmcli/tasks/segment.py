"""Find objects that the user names, as boxes with masks."""

from dataclasses import dataclass

from mmcli.tasks.task import Request


@dataclass(frozen=True, kw_only=True)
class SegmentRequest(Request):
    """`words` names what to find; several objects are separated by ` ; `."""

    task = "segment"
    default_max_tokens = 512
    finds_objects = True
    finds_masks = True
