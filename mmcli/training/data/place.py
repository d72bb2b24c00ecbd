"""Where data lie: which files there are, which split of them is wanted, and where the pictures are that they name."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mmcli.errors import UsageError
from mmcli.hub.fields import shown
from mmcli.media.naming import printable
from mmcli.training.data.rows import Unusable
from mmcli.training.data.values import text

LONGEST_NAME = 4096  # characters of a path

# Splits, by how folders and files are called: "train2017", "valid", "instances_val".
_SPLITS = {"train": "train|training|trainval", "val": "val|valid|validation|dev|eval", "test": "test|testing"}
_SPLIT = re.compile("|".join(rf"(?P<{name}>(?:{words})\d*)" for name, words in _SPLITS.items()))


@dataclass(frozen=True)
class Place:
    """Data as a user named them: a file or a folder."""

    path: Path
    media: Path | None = None  # a folder in which pictures and recordings lie that are not beside the data
    split: str | None = None  # the one that is wanted; None: the first of `prefer` that there is, else all there are
    prefer: tuple[str, ...] = ("train",)

    @property
    def root(self) -> Path:
        """The folder that pictures may not lie outside of."""
        folder = self.path if self.path.is_dir() else self.path.parent
        return folder.parent if self.path.is_file() and folder.name == "annotations" else folder

    def name(self, path: Path) -> str:
        """What messages call a file: its path below the data, or its own name."""
        return (
            path.relative_to(self.path).as_posix()
            if path.is_relative_to(self.path) and path != self.path
            else path.name
        )

    def chosen(self, files: Iterable[Path]) -> list[Path]:
        """Those files that belong to the wanted split. Raises UsageError for a split that none belongs to."""
        splits: dict[str | None, list[Path]] = {}
        for file in files:
            below = file.relative_to(self.root) if file.is_relative_to(self.root) else Path(file.name)
            splits.setdefault(split_of(below.with_suffix("").parts), []).append(file)
        return self.of_splits(splits)

    def of_splits(self, splits: "dict[str | None, list[Path]]") -> list[Path]:
        """What belongs to the wanted one of some splits; None holds what belongs to no split."""
        there = [name for name in splits if name is not None]
        if self.split is not None:
            wanted = split_of([self.split]) or self.split
            if wanted not in splits:
                has = f"It has {', '.join(sorted(there))}" if there else "Its files belong to no split"
                raise UsageError(f"{printable(str(self.path))} has no split {printable(self.split)}", has)
            return splits[wanted]
        for name in self.prefer:
            if name in splits:
                return splits[name]
        return [path for own in splits.values() for path in own]

    def find(self, name: Any, *bases: Path, what: str = "picture") -> Path:
        """The file that a row names, from one of `bases` or of the user's own folder.

        Links are followed. Raises Unusable for one that is missing, or that lies outside both the data's folder and
        the one that the user named for pictures.
        """
        name = text(name, f"{what} (its path)")
        if "://" in name[:16] or len(name) > LONGEST_NAME or "\0" in name:
            raise Unusable(f"its {what} is {shown(name)}, and only files are read")
        names = [name] if os.sep == "\\" or "\\" not in name else [name, name.replace("\\", "/")]
        tried = [Path(base, one) for one in names for base in (*bases, *([self.media] if self.media else []))]
        outside = False
        for path in tried:
            real = os.path.realpath(path)
            if not os.path.isfile(real):
                continue
            if self._holds(real):
                return path
            outside = True
        if outside:
            raise Unusable(f"its {what} {shown(name)} lies outside the data's folder; name where with --media FOLDER")
        raise Unusable(f"its {what} {shown(name)} does not exist")

    def allowed(self, real: str | Path) -> bool:
        """Whether a folder or a file lies, links followed, where data may lie."""
        return self._holds(os.path.realpath(real))

    def _holds(self, real: str) -> bool:
        return any(real == root or real.startswith(root.rstrip(os.sep) + os.sep) for root in self._roots)

    @cached_property
    def _roots(self) -> list[str]:
        return [os.path.realpath(root) for root in (self.root, *([self.media] if self.media else []))]


def split_of(parts: Sequence[str]) -> str | None:
    """The split that a path belongs to, by the last of its parts that tells one."""
    for part in reversed(parts):
        for word in reversed(re.split(r"[^a-z0-9]+", part.lower())):
            if match := _SPLIT.fullmatch(word):
                return match.lastgroup
    return None
