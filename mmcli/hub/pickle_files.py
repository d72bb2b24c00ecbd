"""Weights that exist only as pickles of PyTorch (`pytorch_model.bin`): which files there are, and their tensors.

A file is looked through first (`pickle_scan`), then read by PyTorch's restricted unpickler, which builds tensors and
nothing else. Code in it is never run.
"""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmcli.errors import ModelError, raise_if_interrupted, ran_out_of_memory
from mmcli.hub.pickle_scan import damaged, scan
from mmcli.hub.safetensors_files import MOST_SIDES, MOST_TENSORS, TensorInfo

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SINGLE = "pytorch_model.bin"
INDEX = "pytorch_model.bin.index.json"
SHARDS = "pytorch_model-*.bin"

KINDS = {  # types as PyTorch calls them, and as safetensors does
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip


def kind_of(tensor: Tensor) -> str | None:
    """What safetensors calls a tensor's type; None for one that is not known here."""
    return KINDS.get(str(tensor.dtype).removeprefix("torch."))


def read_pickle(path: Path, *, data: bool = True) -> dict[str, Tensor]:
    """The tensors in a file that torch.save wrote, by their names. Raises ModelError for whatever is anything else.

    They are mapped from the file, in private pages; those of files older than PyTorch 1.6 are read into memory, or
    without `data` have no values.
    """
    import torch

    if not path.is_file():  # a pipe would be waited for
        raise ModelError(f"{path} is no file", "Download the model again")
    records = scan(path)
    mapped = records is not None
    try:
        with nullcontext() if data or mapped else torch.serialization.skip_data():
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:
        raise_if_interrupted(error)
        if ran_out_of_memory(error):
            raise
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise damaged(path, first) from error
    return _checked(path, content, records)


def _checked(path: Path, content: Any, records: list[int] | None) -> dict[str, Tensor]:
    """A table of plain tensors, each no larger than the numbers that it has in the file. ModelError.

    PyTorch maps as many numbers as the pickle says, whatever the record's length, so that is compared with `records`.
    """
    import torch

    if not isinstance(content, dict) or not content:
        raise ModelError(
            f"{path} holds no table of tensors", "Use a file of weights alone, as save_pretrained writes it"
        )
    if len(content) > MOST_TENSORS:
        raise damaged(path, f"it holds {len(content)} tensors; expected at most {MOST_TENSORS}")
    stores: dict[int, int] = {}
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            what = f"{str(name)[:60]!r} is a {type(tensor).__name__}"
            raise ModelError(f"{path} holds more than tensors by their names: {what}", "Use a file of weights alone")
        plain = type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.layout == torch.strided
        if not plain or kind_of(tensor) is None or tensor.ndim > MOST_SIDES or tensor.device.type != "cpu":
            raise damaged(path, f"{name[:60]!r} is of a type that mmcli does not know")
        store = tensor.untyped_storage()
        if tensor.nbytes > store.nbytes():
            raise damaged(path, f"{name[:60]!r} says that it is larger than its numbers in the file")
        stores[store.data_ptr()] = max(stores.get(store.data_ptr(), 0), store.nbytes())
    declared = Counter(size for size in stores.values() if size)
    if sum(stores.values()) > path.stat().st_size or (records is not None and not declared <= Counter(records)):
        raise damaged(path, "its numbers are more or fewer than it says")
    return {name: tensor.detach() for name, tensor in content.items()}


def pickle_header(path: Path) -> dict[str, TensorInfo]:
    """Names, types and shapes in a file that torch.save wrote. Raises ModelError."""
    return {
        name: TensorInfo(kind_of(tensor) or "", tuple(tensor.shape))
        for name, tensor in read_pickle(path, data=False).items()
    }


class PickleTensors:
    """A file's tensors, asked for as those of safetensors' `safe_open`."""

    def __init__(self, path: Path, device: torch.device | str = "cpu"):
        self._tensors, self._device = read_pickle(path), device

    def __enter__(self) -> PickleTensors:
        return self

    def __exit__(self, *error: object) -> None:
        self._tensors = {}

    def keys(self) -> list[str]:
        return list(self._tensors)

    def get_tensor(self, name: str) -> Tensor:
        return self._tensors[name].to(self._device).contiguous()

    def get_slice(self, name: str) -> PickleSlice:
        return PickleSlice(self._tensors[name])


class PickleSlice:
    """One tensor, of which parts are taken."""

    def __init__(self, tensor: Tensor):
        self._tensor = tensor

    def get_shape(self) -> list[int]:
        return list(self._tensor.shape)

    def __getitem__(self, place: Any) -> Tensor:
        return self._tensor[place]
