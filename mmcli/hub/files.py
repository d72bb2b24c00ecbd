"""What lies in a model's folder, which may hold anything."""

import os
from collections.abc import Iterator
from pathlib import Path

DEEPEST = 32  # levels of folders that are looked into; models have two
MOST = 100_000  # entries


def below(folder: Path) -> Iterator[Path]:
    """Everything below `folder`, as far as it can be listed. Links to folders are not followed."""
    todo, seen = [(folder, 0)], 0
    while todo:
        place, level = todo.pop()
        try:
            with os.scandir(place) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            seen += 1
            if seen > MOST:
                return
            yield Path(entry.path)
            if level < DEEPEST and entry.is_dir(follow_symlinks=False):
                todo.append((Path(entry.path), level + 1))
