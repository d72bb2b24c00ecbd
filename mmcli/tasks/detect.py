"""Find things that the user names, as boxes."""

from dataclasses import dataclass

from mmcli.tasks.task import Request


@dataclass(frozen=True, kw_only=True)
class DetectRequest(Request):
    """`words` names what to find; several things are separated by ` ; `."""

    task = "detect"
    default_max_tokens = 512
    finds_objects = True


def tidy_things(words: str) -> str:
    """`"cat;dog ; "` → `"cat ; dog"`, the form that models were trained on."""
    return " ; ".join(part for part in (part.strip() for part in words.split(";")) if part)
