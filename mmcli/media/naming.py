"""What an input is called: on a terminal, under an output folder, and in the sentence that says why it failed."""

import errno
import os
from collections.abc import Collection
from pathlib import PurePath, PurePosixPath

from mmcli.errors import InputError
from mmcli.escape import escape_line
from mmcli.media.pipes import NoWriter

COMMON = (".jpg", ".png", ".webp", ".heic", ".wav", ".mp3", ".flac", ".m4a", ".mp4", ".mov")  # extensions
STREAM_LIMIT = 1200 << 20  # bytes of a pipe or device where the caller sets no limit, which all lie in memory


def printable(name: str) -> str:
    """`name` on one line and fit for a terminal: control characters and bytes that are no UTF-8 are escaped."""
    return escape_line(name)


def relative_place(name: str) -> PurePosixPath:
    """Where the outputs of the file `name` go under an output folder.

    The path as given, tidied: files of one name from two folders do not overwrite each other's outputs. As in tar, a
    path outside the current folder loses its root and keeps the rest (so only `/d/a` and `d/a` meet).
    """
    tidy = os.path.normpath(name)
    if os.path.isabs(tidy) or PurePath(tidy).parts[:1] == ("..",):
        here, full = os.getcwd(), os.path.abspath(tidy)
        inside = full != here and PurePath(full).is_relative_to(here)
        tidy = str(PurePath(full).relative_to(here if inside else PurePath(full).anchor))
    parts = [part for part in PurePath(tidy).parts if part not in ("", ".", "..")]
    return PurePosixPath(*parts) if parts else PurePosixPath("unnamed")


def trouble(name: str, error: OSError | ValueError) -> InputError:
    """The InputError for what the operating system said about `name`."""
    name = printable(name)
    if isinstance(error, NoWriter):
        return InputError(f"{name} is a FIFO that nobody writes to", "Start what writes to it first")
    number = getattr(error, "errno", None)
    if number in (errno.ENOENT, errno.ENOTDIR):
        return InputError(f"{name} does not exist", "Check the name and the folder you are in")
    if number in (errno.EACCES, errno.EPERM):
        return InputError(f"{name} may not be read by you", "Change its permissions, or copy it to where you may")
    if number == errno.EISDIR:
        return InputError(f"{name} is a folder, not one file", "Name a file in it")
    if number == errno.ELOOP:
        return InputError(f"{name} is a link that leads back to itself", "Name the file that it should lead to")
    reason = getattr(error, "strerror", None) or str(error)
    return InputError(f"{name} cannot be read: {printable(reason)}")


def empty(name: str) -> InputError:
    """The InputError for an input without a byte in it; a pipe is called "-"."""
    if name == "-":
        return InputError("Standard input (-) is empty", "See what the command before it says")
    return InputError(f"{printable(name)} is empty", "Get a fresh copy of the file")


def nothing_in(folder: str, extensions: Collection[str]) -> tuple[str, str]:
    """What is said of a folder without files of these extensions: what is wrong, and what was looked for."""
    named = [one for one in COMMON if one in extensions] or sorted(extensions)[:5]
    more = len(extensions) - len(named)
    looked_for = ", ".join(named) + (f" and {more} other kinds of files" if more else "")
    return f"{folder} has no file that can be used", f"Looked in it and below for {looked_for}"


def too_long(name: str, limit: int) -> InputError:
    """The InputError for an input of more than `limit` bytes."""
    do = "Give a smaller file, or if it comes through a pipe, save it as a file and name that"
    size = f"{limit / (1 << 20):,.0f} MiB" if limit >= 1 << 20 else f"{limit:,} bytes"
    do = do if limit == STREAM_LIMIT else "Give a smaller file"
    return InputError(f"{printable(name)} is longer than {size}", do)
