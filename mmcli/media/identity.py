"""The identity of an input, which changes when the input does."""

import hashlib
import os
import stat

from mmcli.media.sources import Source


def identity(source: Source) -> str | None:
    """A text that is different for another or a changed input: a file's name, size and time of change, an address, or a
    hash of what lies in memory.

    None for what can be read once only (standard input, a pipe) and for what is not there.
    """
    known = _identity(source)
    return f"{known} {source.beside}" if known is not None and source.beside else known


def _identity(source: Source) -> str | None:
    if source.problem is not None or source.content is not None:
        return source.content
    if source.url is not None:
        return f"url {source.url}"
    if source.path is None:
        return None
    try:
        status = os.stat(source.path)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return f"file {source.name} {status.st_size} {status.st_mtime_ns}"


def identity_of_bytes(data: bytes) -> str:
    """The same for an input that lies in memory: by its content."""
    return f"sha256 {hashlib.sha256(data).hexdigest()}"
