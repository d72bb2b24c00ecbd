"""Say in a sentence what a picture shows."""

from dataclasses import dataclass

from mmcli.tasks.task import Request


@dataclass(frozen=True, kw_only=True)
class CaptionRequest(Request):
    """`words` is unused."""

    task = "caption"
    default_max_tokens = 128
