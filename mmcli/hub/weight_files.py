"""The weight files of a checkpoint folder, whatever their form: safetensors, and pickles where there are only those."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmcli.hub import pickle_files, safetensors_files
from mmcli.hub.device_tensors import DeviceTensors
from mmcli.hub.other_formats import not_a_checkpoint
from mmcli.hub.safetensors_files import TensorInfo, listed_files, read_header, read_index

if TYPE_CHECKING:
    import torch


def weight_files(folder: Path) -> list[Path]:
    """The model's weight files in order: safetensors, else pickles; of each the one whole file, else an index's shards.

    As in transformers, a whole file wins over an index. Raises ModelError where there is none (and says what the folder
    is instead), or a shard is missing.
    """
    for single, index in FORMS:
        if (folder / single).is_file():
            return [folder / single]
        if (folder / index).is_file():
            return listed_files(folder, index)
    whole, shards = FORMS[0]
    raise not_a_checkpoint(folder, f"holds no weights: there is neither {whole} nor {shards}")


FORMS = ((safetensors_files.SINGLE, safetensors_files.INDEX), (pickle_files.SINGLE, pickle_files.INDEX))


def index_of(files: list[Path]) -> Path | None:
    """The index by which these `weight_files` were found; None for one whole file."""
    folder, name = files[0].parent, files[0].name
    if name in [single for single, _ in FORMS]:
        return None
    return folder / (pickle_files.INDEX if is_pickle(files[0]) else safetensors_files.INDEX)


def names_in_index(index: Path) -> set[str]:
    """The tensors that an index lists. ModelError."""
    return set(read_index(index))


def is_pickle(path: Path) -> bool:
    """Whether a weight file is a pickle, by its name."""
    return path.suffix == ".bin"


def has_only_pickles(folder: Path) -> bool:
    """Whether pickles are what a folder's weights would be read from. Nothing is opened."""
    (whole, index), (pickled, pickled_index) = FORMS
    there = [(folder / name).is_file() for name in (whole, index, pickled, pickled_index)]
    return not any(there[:2]) and any(there[2:])


def header_of(path: Path) -> dict[str, TensorInfo]:
    """Names, types and shapes in a weight file, read without its numbers where that can be. ModelError."""
    return pickle_files.pickle_header(path) if is_pickle(path) else read_header(path)


def open_weights(path: Path, device: "torch.device | str" = "cpu") -> Any:
    """A weight file as safetensors' `safe_open` gives it: a context with keys, get_tensor and get_slice."""
    if is_pickle(path):
        return pickle_files.PickleTensors(path, device)
    if str(device).startswith("cuda"):
        import torch

        return DeviceTensors(path, torch.device(device))
    from safetensors import safe_open

    return safe_open(path, framework="pt", device=str(device))
