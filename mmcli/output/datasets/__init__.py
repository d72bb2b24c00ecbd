"""Data sets of many images in the layouts that trainers and annotation tools read, one `Dataset` each.

A data set is made of all records of a folder together, since what a class is called by number is decided by all of
them: what was asked for comes first, in the order in which it was named, and other labels behind it by the alphabet.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # help texts name the layouts, and need no more of them
    from mmcli.output.datasets.items import Files, Items


@dataclass(frozen=True)
class Dataset:
    """One layout: `files(items, names)` are its files; `names` are the classes in their order."""

    name: str
    files: "Callable[[Items, list[str], Path], Files]"  # the third is the folder in which they will lie
    tasks: tuple[str, ...] = ("detect", "segment")
    links: bool = False  # whether the images are to lie beside the labels, in `images/`
    beside: bool = False  # whether it depends on where the images lie
    suffix: str | None = None  # of files that are called as those of the forms of each input are


def _coco(items: "Items", names: list[str], folder: Path) -> "Files":
    from mmcli.output.datasets.coco import files

    return files(items, names)


def _yolo(items: "Items", names: list[str], folder: Path) -> "Files":
    from mmcli.output.datasets.yolo import files

    return files(items, names)


def _voc(items: "Items", names: list[str], folder: Path) -> "Files":
    from mmcli.output.datasets.voc import files

    return files(items)


def _labelme(items: "Items", names: list[str], folder: Path) -> "Files":
    from mmcli.output.datasets.labelme import files

    return files(items, folder)


_TABLE = (
    Dataset("coco", _coco),
    Dataset("yolo", _yolo, links=True, beside=True),
    Dataset("voc", _voc),
    Dataset("labelme", _labelme, beside=True, suffix=".json"),
)
DATASETS = {dataset.name: dataset for dataset in _TABLE}
