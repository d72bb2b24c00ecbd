"""The safetensors files of a checkpoint folder: which there are, and what their headers promise."""

import json
from dataclasses import dataclass
from pathlib import Path

from mmcli.errors import ModelError
from mmcli.hub.other_formats import not_a_checkpoint, not_the_content

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip


@dataclass(frozen=True)
class TensorInfo:
    """One entry of a safetensors header."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of elements."""
        total = 1
        for side in self.shape:
            total *= side
        return total


def weight_files(folder: Path) -> list[Path]:
    """The model's weight files, `model.safetensors` or else the shards of its index, in order.

    As in transformers, a whole file wins over an index. Raises ModelError where there is neither (and says what the
    folder is instead), or a shard is missing.
    """
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    index = folder / INDEX
    if not index.is_file():
        raise not_a_checkpoint(folder, f"holds no weights: there is neither {SINGLE} nor {INDEX}")
    shards = sorted(set(read_index(index).values()))
    missing = [name for name in shards if not (folder / name).is_file()]
    if missing:
        raise ModelError(
            f"{folder} lacks {len(missing)} of {len(shards)} weight files: {', '.join(missing[:3])}",
            "Download the model again, or copy the missing files into the folder",
        )
    return [folder / name for name in shards]


def read_index(index: Path) -> dict[str, str]:
    """Tensor name → shard file name, from an index; names that would leave the folder are refused with ModelError."""
    try:
        shards = json.loads(index.read_text("utf-8"))["weight_map"]
        sound = isinstance(shards, dict) and bool(shards) and all(isinstance(name, str) for name in shards.values())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{index} is damaged ({error})", "Download the model again") from error
    if not sound or any(name != Path(name).name or not name.endswith(".safetensors") for name in shards.values()):
        raise ModelError(f"{index} does not list safetensors files beside it", "Download the model again")
    return shards


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Names, types and shapes in a safetensors file, read without its data.

    The file's size is checked against the header, so a truncated download is found here. Raises ModelError.
    """
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
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        if size != 8 + length + end:
            raise ValueError(f"it has {size} bytes where its header promises {8 + length + end}")
        return {name: TensorInfo(entry["dtype"], tuple(entry["shape"])) for name, entry in header.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> ModelError:
    """The error of a weight file that cannot be read."""
    return ModelError(f"{path} is damaged: {error}", "Download the model again (mmcli models verify finds such files)")


def parameter_count(folder: Path) -> int:
    """Numbers in all weight files of `folder`, from the headers alone."""
    return sum(info.count for path in weight_files(folder) for info in read_header(path).values())
