"""A model's folder written anew: all of it or none."""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from mmcli.errors import UsageError, WriteError
from mmcli.hub.layout import PATTERNS
from mmcli.hub.resolve import Checkpoint

SHARD = 5_000_000_000  # bytes; a larger model is parted into files of at most that, unless one tensor is larger
COMPANIONS = (*PATTERNS, "LICENSE*", "NOTICE*", "README.md", "MODEL_CARD.md")  # what goes along, if it is there
LEFT = ("*.safetensors", "*.index.json")


@contextmanager
def new_folder(checkpoint: Checkpoint, target: Path, size: int) -> Iterator[Path]:
    """A folder beside `target` to write weights of `size` bytes into, which takes its name if all goes well.

    What belongs to the checkpoint besides its weights is in it already. Raises UsageError where `target` exists,
    WriteError where the disk does not take it; then, or if the caller raises, nothing is left behind.
    """
    if os.path.lexists(target):
        raise UsageError(f"{target} exists already, and nothing is written over", "Name a folder that is not there")
    source = checkpoint.folder
    companions = [path for path in sorted(source.iterdir()) if path.is_file() and _goes_along(path.name)]
    with _in_words(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _check_room(target, size + sum(path.stat().st_size for path in companions))
        draft = target.parent / f".mmcli-{secrets.token_hex(8)}.part"
        draft.mkdir()
        try:
            for path in companions:
                shutil.copyfile(path, draft / path.name)
            yield draft
            if os.path.lexists(target):  # another process made it meanwhile
                raise UsageError(f"{target} exists by now, and nothing is written over", "Name another folder")
            draft.rename(target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def _check_room(target: Path, wanted: int) -> None:
    free = shutil.disk_usage(target.parent).free
    if wanted > free:
        what = f"{target} needs {wanted / 1e9:.1f} GB, but there are only {free / 1e9:.1f} GB free"
        raise WriteError(what, "Free some space or choose another place")


@contextmanager
def _in_words(target: Path) -> Iterator[None]:
    """Turn what the system says into an error with a sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            what = f"{target} cannot be written: the disk is full"
            raise WriteError(what, "Free some space or choose another place") from error
        raise WriteError(f"{target} cannot be written ({error.strerror or error})", "Choose another place") from error


def _goes_along(name: str) -> bool:
    return any(fnmatch(name, one) for one in COMPANIONS) and not any(fnmatch(name, one) for one in LEFT)
