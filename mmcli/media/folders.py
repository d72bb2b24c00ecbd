"""What lies in folders: walking them, and matching patterns against them."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch


@dataclass(frozen=True)
class Unlisted:
    """A folder that could not be listed, and why."""

    path: str
    error: OSError


def walk(folder: str) -> Iterator[os.DirEntry | Unlisted]:
    """Everything below `folder` that is not hidden, sorted by name, folders before what is in them.

    Links to folders are followed, and each folder is entered once (`visited`: device and inode), however many links
    lead to it: loops end, and n folders that link to each other do not give n! paths. Folders may lie as deep as the
    system allows.
    """
    visited: set[tuple[int, int]] = set()
    levels = [_listing(folder, visited)]
    while levels:
        entry = next(levels[-1], None)
        if entry is None:
            levels.pop()
            continue
        yield entry
        if not isinstance(entry, Unlisted) and is_folder(entry):
            levels.append(_listing(entry.path, visited))


def _listing(folder: str, visited: set[tuple[int, int]]) -> Iterator[os.DirEntry | Unlisted]:
    try:
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in visited:
            return
        visited.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        yield Unlisted(folder, error)
        return
    yield from (entry for entry in entries if not entry.name.startswith("."))


def is_folder(entry: os.DirEntry) -> bool:
    """Whether an entry is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def is_glob(text: str) -> bool:
    """Whether a name is a pattern."""
    return any(char in text for char in "*?[")


def matches(base: str, parts: list[str]) -> Iterator[str]:
    """The existing paths that the pattern `parts` names below `base` ("": here), sorted part by part.

    The standard `glob` follows links in `**` without looking for loops, hence this one.
    """
    if not parts:
        yield base
        return
    part, rest = parts[0], parts[1:]
    if part == "**":
        while rest[:1] == ["**"]:  # the same, and each would multiply the walks
            rest = rest[1:]
        if rest:
            yield from matches(base, rest)
        for entry in walk(base or "."):
            inner = not isinstance(entry, Unlisted) and is_folder(entry)
            path = entry.path if base else os.path.relpath(entry.path)
            if rest and inner:
                yield from matches(path, rest)
            elif not rest and not inner:
                yield path
    elif not is_glob(part):
        path = os.path.join(base, part)
        if os.path.lexists(path):
            yield from matches(path, rest)
    else:
        for name in _names_in(base or "."):
            if fnmatch(name, part) and (part.startswith(".") or not name.startswith(".")):
                path = os.path.join(base, name)
                if not rest or os.path.isdir(path):
                    yield from matches(path, rest)


def _names_in(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:  # not a folder, or not ours to list: nothing there that a pattern could match, as in the shell
        return []
