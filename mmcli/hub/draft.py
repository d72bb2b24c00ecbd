"""A folder that is whole or not there."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def drafted(target: Path) -> Iterator[Path]:
    """A new folder beside `target`, which takes its name when all has been written, on the disk too.

    Where something is raised nothing is left behind. `target` must not be there. Raises OSError.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.parent / f".mmcli-{secrets.token_hex(8)}.part"
    draft.mkdir()
    try:
        yield draft
        for path in draft.iterdir():
            flush(path)
        flush(draft)
        draft.rename(target)
        flush(target.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def flush(path: Path) -> None:
    """Wait until a file, or the list of a folder's files, is on the disk."""
    if os.name == "nt" and path.is_dir():  # folders cannot be opened there
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
