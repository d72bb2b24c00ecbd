"""Pickled weights into a folder of safetensors: one tensor in memory at a time, all of the folder or none."""

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from mmcli.errors import ModelError, UsageError
from mmcli.hub.new_folder import SHARD, new_folder
from mmcli.hub.pickle_files import PickleTensors, kind_of
from mmcli.hub.pickle_scan import AGAIN
from mmcli.hub.resolve import Checkpoint
from mmcli.hub.safetensors_files import INDEX, ITEM_BYTES, SINGLE, TensorInfo
from mmcli.hub.weight_files import has_only_pickles, header_of, index_of, names_in_index, weight_files

BLOCK = 1 << 26  # bytes that are written at a time

Place = tuple[Path, str, TensorInfo]  # a tensor: its file, its name there, its type and shape


def convert(checkpoint: Checkpoint, target: Path, on_file: Callable[[str], None] = lambda name: None) -> int:
    """Write `checkpoint` anew into the folder `target`, its weights as safetensors → bytes of the weights.

    `on_file` gets the name of each weight file when it is begun. Tensors that share their numbers are written once a
    name. Raises UsageError where there is nothing to convert or `target` exists, ModelError for pickles that are
    damaged or hold code, WriteError where the disk does not take it; then nothing is left behind.
    """
    source = checkpoint.folder
    if os.path.lexists(target):
        raise UsageError(f"{target} exists already, and nothing is written over", "Name a folder that is not there")
    files = weight_files(source)
    if not has_only_pickles(source):
        raise UsageError(f"{checkpoint.name} has safetensors weights already", "Use it as it is")
    tensors = [(path, name, info) for path in files for name, info in header_of(path).items()]
    _check_names(source, files, tensors)
    size = sum(_bytes(info) for _, _, info in tensors)
    with new_folder(checkpoint, target, size) as draft:
        _write_all(draft, tensors, size, on_file)
    return size


def _check_names(source: Path, files: list[Path], tensors: list[Place]) -> None:
    """Raise ModelError where a tensor is twice there, or an index lists what no file holds."""
    count = Counter(name for _, name, _ in tensors)
    double = [name for name, times in count.items() if times > 1]
    if double:
        raise ModelError(f"{source} holds {double[0]} twice, in two files", AGAIN)
    index = index_of(files)
    absent = sorted(names_in_index(index) - count.keys()) if index else []
    if index and absent:
        raise ModelError(f"{source} lists {absent[0]} in {index.name}, but no file holds it", AGAIN)


def _bytes(info: TensorInfo) -> int:
    return math.prod(info.shape) * ITEM_BYTES[info.dtype]


def _write_all(folder: Path, tensors: list[Place], size: int, on_file: Callable[[str], None]) -> None:
    """One file, or several and an index of them."""
    shards = list(_shards(tensors))
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = SINGLE if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        on_file(name)
        _write(folder / name, shard)
        weight_map |= {tensor: name for _, tensor, _ in shard}
    if len(shards) > 1:
        index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", "utf-8")


def _shards(tensors: list[Place]) -> Iterator[list[Place]]:
    shard: list[Place] = []
    filled = 0
    for place in tensors:
        size = _bytes(place[2])
        if shard and filled + size > SHARD:
            yield shard
            shard, filled = [], 0
        shard.append(place)
        filled += size
    yield shard


def _write(path: Path, tensors: list[Place]) -> None:
    """A safetensors file, tensor by tensor; those of wide types first, so that each is aligned."""
    ordered = sorted(tensors, key=lambda place: (-ITEM_BYTES[place[2].dtype], place[0], place[1]))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for _, name, info in ordered:
        begin, end = end, end + _bytes(info)
        header[name] = {"dtype": info.dtype, "shape": list(info.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        opened: tuple[Path, PickleTensors] | None = None
        for source, name, info in ordered:
            if opened is None or opened[0] != source:
                opened = source, PickleTensors(source)
            _write_tensor(file.write, opened[1], name, info)
        file.flush()
        os.fsync(file.fileno())


def _write_tensor(write: Callable[[memoryview], object], tensors: PickleTensors, name: str, info: TensorInfo) -> None:
    import torch

    tensor = tensors.get_tensor(name)
    if (kind_of(tensor), tuple(tensor.shape)) != (info.dtype, info.shape):
        raise ModelError(f"{name} changed while it was read", "Run it again")
    numbers = tensor.reshape(-1).view(torch.uint8).numpy() if tensor.numel() else torch.empty(0).numpy()
    for start in range(0, numbers.nbytes, BLOCK):
        write(numbers[start : start + BLOCK].data)
