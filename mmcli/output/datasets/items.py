"""The images of a data set, their classes and their places."""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mmcli.output.schema import Record


@dataclass(frozen=True)
class Item:
    """One image of a data set."""

    record: Record
    place: PurePosixPath  # of the image below the folder, with its suffix
    label: PurePosixPath  # of its labels, without a suffix; no two images share it
    path: Path | None  # of its file, absolute; None where it has none

    @property
    def image(self) -> PurePosixPath:
        """Where the image itself goes in layouts in which it is called as its labels are."""
        return self.label.with_name(self.label.name + self.place.suffix)


Items = Callable[[], Iterable[Item]]  # as often as they are wanted, in the same order: they need not fit into memory
Files = Iterator[tuple[str, Iterable[str]]]  # the place of each file below the data set's folder, and its text in parts


def class_names(items: Iterable[Item], asked: Iterable[str]) -> list[str]:
    """The names of all classes: those `asked` for in their order, then other labels by the alphabet."""
    first = list(dict.fromkeys(asked))
    others = {found.label for item in items for found in item.record.objects} - set(first)
    return [*first, *sorted(others)]


def labels(places: Iterable[PurePosixPath]) -> dict[PurePosixPath, PurePosixPath]:
    """The places of images → those of their labels: `a.jpg` → `a`, and of `a.png` beside it `a.png`, or `a.png-2`."""
    found: dict[PurePosixPath, PurePosixPath] = {}
    taken: set[PurePosixPath] = set()
    for place in places:
        tries = (place.with_suffix(""), place, *(place.with_name(f"{place.name}-{n}") for n in range(2, 10_000)))
        found[place] = next(label for label in tries if label not in taken)
        taken.add(found[place])
    return found


def link_images(items: Iterable[Item], folder: Path) -> None:
    """Lay every image below `folder`, as a link where the system has links and as a copy elsewhere. Raises OSError."""
    for item in items:
        if item.path is None:
            continue
        place = folder / item.image
        if os.path.lexists(place):
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            place.symlink_to(os.path.relpath(item.path, os.path.realpath(place.parent)))
        except (OSError, NotImplementedError):
            shutil.copyfile(item.path, place)
