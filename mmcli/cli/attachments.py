"""The files that a command line names for a question."""

from typing import TYPE_CHECKING

from mmcli.cli.environment import Environment
from mmcli.tasks.attachments import Able, Attachment, load_attachment

if TYPE_CHECKING:
    from mmcli.media.sources import Source


def load_attachments(
    environment: Environment,
    names: list[str],
    kind: str | None = None,
    able: Able = lambda: None,
    model: str = "The model",
) -> list[Attachment]:
    """Everything that `names` name, read; raises as `load_attachment`."""
    return [load_attachment(source, kind, able, model) for source in find_attachments(environment, names, kind)]


def find_attachments(environment: Environment, names: list[str], kind: str | None = None) -> "list[Source]":
    """What `names` name: files, folders, globs, addresses, standard input. `kind` as for `load_attachment`."""
    if not names:
        return []
    from mmcli.media.sources import AUDIO_EXTENSIONS, IMAGE_EXTENSIONS, RECORDING_EXTENSIONS, expand

    extensions = {
        "picture": IMAGE_EXTENSIONS,
        "recording": RECORDING_EXTENSIONS,
        None: IMAGE_EXTENSIONS | AUDIO_EXTENSIONS,
    }
    return list(expand(names, extensions=extensions[kind], stdin=environment.stdin))
