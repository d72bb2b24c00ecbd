"""The safetensors files of a checkpoint folder: what their headers promise, and what an index lists."""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmcli.errors import ModelError
from mmcli.hub.fields import Fields, shown
from mmcli.hub.json_files import parse_json, read_json
from mmcli.hub.other_formats import not_the_content

SINGLE = "model.safetensors"
SCALE = "_scale"  # behind the name of a quantised tensor: its factors
INDEX = "model.safetensors.index.json"

LARGEST_HEADER = 8_000_000  # bytes; those of the largest published files have some hundred thousand
MOST_TENSORS = 20_000  # of one file
MOST_SHARDS = 2000
MOST_SIDES = 8  # dimensions of a tensor
_SHARD = re.compile(r"[\w-][\w.-]{0,200}\.(?:safetensors|bin)")  # a file beside the index

ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "C64": 8,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip


@dataclass(frozen=True)
class TensorInfo:
    """One entry of a safetensors header."""

    dtype: str
    shape: tuple[int, ...]
    start: int = field(default=0, compare=False)  # where its bytes begin in the file

    @property
    def is_floating_point(self) -> bool:
        return self.dtype.startswith(("F", "BF"))

    @property
    def count(self) -> int:
        """Number of elements."""
        total = 1
        for side in self.shape:
            total *= side
        return total


def listed_files(folder: Path, name: str) -> list[Path]:
    """The shards that the index of that name lists, in order. Raises ModelError where one is missing."""
    shards = sorted(set(read_index(folder / name).values()))
    missing = [name for name in shards if not (folder / name).is_file()]
    if missing:
        raise ModelError(
            f"{folder} lacks {len(missing)} of {len(shards)} weight files: {', '.join(missing[:3])}",
            "Download the model again, or copy the missing files into the folder",
        )
    return [folder / name for name in shards]


def read_index(index: Path) -> dict[str, str]:
    """Tensor name → shard file name, from an index; names that would leave the folder are refused with ModelError.

    Shards are of the form that the index is of: pytorch_model.bin.index.json lists .bin files.
    """
    suffix = Path(index.name.removesuffix(".index.json")).suffix
    shards = Fields(read_json(index), str(index)).part("weight_map").raw
    known = [isinstance(name, str) and _SHARD.fullmatch(name) and name.endswith(suffix) for name in shards.values()]
    if not shards or not all(known):
        kind = suffix.removeprefix(".")
        raise ModelError(f"{index} does not list {kind} files beside it (weight_map)", "Download the model again")
    if len(set(shards.values())) > MOST_SHARDS:
        raise ModelError(f"{index} lists more than {MOST_SHARDS} files (weight_map)", "Download the model again")
    return dict(shards)


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Names, types and shapes in a safetensors file, read without its data. Raises ModelError.

    The file must be what its header promises, byte for byte: as long, every tensor as large as its type and shape say,
    one behind the other without holes or overlaps. So a truncated download is found here.
    """
    if not path.is_file():  # a pipe would be waited for
        raise ModelError(f"{path} is no file", "Download the model again")
    try:
        with path.open("rb") as file:
            head = file.read(64)
            if instead := not_the_content(head):
                raise ValueError(instead)
            length = int.from_bytes(head[:8], "little")
            file.seek(8)
            size = path.stat().st_size
            if not 2 <= length <= size - 8:
                raise ValueError("it is cut off or is no safetensors file")
            if length > LARGEST_HEADER:
                raise ValueError(f"its header of {length / 1e6:.0f} MB is larger than any should be")
            header = parse_json(file.read(length), unique=True)
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise damaged(path, error) from error
    header.pop("__metadata__", None)
    if len(header) > MOST_TENSORS:
        raise damaged(path, ValueError(f"it holds {len(header)} tensors; expected at most {MOST_TENSORS}"))
    tensors: dict[str, TensorInfo] = {}
    spans: list[tuple[int, int]] = []
    try:
        for name, entry in header.items():
            info, span = _tensor(name, entry)
            tensors[name] = replace(info, start=8 + length + span[0])
            spans.append(span)
        end = 0
        for start, stop in sorted(spans):
            if start != end:
                raise ValueError("its tensors overlap, or there is something between them")
            end = stop
        if size != 8 + length + end:
            raise ValueError(f"it has {size} bytes where its header promises {8 + length + end}")
    except ValueError as error:
        raise damaged(path, error) from error
    return tensors


def _tensor(name: str, entry: Any) -> tuple[TensorInfo, tuple[int, int]]:
    """One entry of a header → what it is, and where it begins and ends behind the header. Raises ValueError."""
    entry = entry if isinstance(entry, dict) else {}
    dtype, shape, span = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise ValueError(f"{shown(name)} is of the type {shown(dtype)}, which mmcli does not know")
    if not _wholes(shape) or len(shape) > MOST_SIDES:
        raise ValueError(f"{shown(name)} has the shape {shown(shape)}, which is none")
    if not _wholes(span) or len(span) != 2:
        raise ValueError(f"{shown(name)} has data_offsets of {shown(span)}, which are none")
    info = TensorInfo(dtype, tuple(shape))
    if span[1] - span[0] != info.count * ITEM_BYTES[dtype]:
        raise ValueError(f"{shown(name)}, {dtype} of the shape {shown(shape)}, does not take {span[1] - span[0]} bytes")
    return info, (span[0], span[1])


def _wholes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 1 << 62 for value in values)


def damaged(path: Path, error: Exception) -> ModelError:
    """The error of a weight file that cannot be read."""
    return ModelError(f"{path} is damaged: {error}", "Download the model again (mmcli models verify finds such files)")
