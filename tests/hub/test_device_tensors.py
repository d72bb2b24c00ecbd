"""Weights that several threads read in pieces: bit for bit what safetensors reads."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mmcli.hub import device_tensors
from mmcli.hub.device_tensors import _TYPES, DeviceTensors
from mmcli.hub.safetensors_files import ITEM_BYTES

CPU = torch.device("cpu")


def of_bytes(kind: torch.dtype, *shape: int) -> torch.Tensor:
    """Any bytes, seen as numbers of a type (truth values: 0 and 1)."""
    count = torch.empty(shape, dtype=kind).nbytes
    data = torch.randint(0, 2 if kind == torch.bool else 256, (count,), dtype=torch.uint8)
    return data.view(kind).view(shape)


def test_all_types_are_known():
    assert _TYPES.keys() == ITEM_BYTES.keys()


@pytest.mark.parametrize("ahead", [0, 500])
@pytest.mark.parametrize("unforeseen", [(), ("odd", "F32.large")])
def test_tensors_of_all_types_and_sizes_are_those_of_the_file(ahead, unforeseen, tmp_path, monkeypatch):
    monkeypatch.setattr(device_tensors, "PIECE", 64)
    monkeypatch.setattr(device_tensors, "AHEAD", ahead)
    torch.manual_seed(0)
    kinds = {name: getattr(torch, kind) for name, kind in _TYPES.items()}
    tensors = {f"{name}.large": of_bytes(kind, 7, 99) for name, kind in kinds.items()}
    tensors |= {f"{name}.piece": of_bytes(kind, 64 // kind.itemsize) for name, kind in kinds.items()}
    tensors |= {"scalar": torch.tensor(3.5), "nothing": torch.empty(0, 4), "odd": of_bytes(torch.uint8, 65)}
    save_file(tensors, tmp_path / "a.safetensors")
    with DeviceTensors(tmp_path / "a.safetensors", CPU) as ours, safe_open(tmp_path / "a.safetensors", "pt") as theirs:
        assert set(ours.keys()) == set(theirs.keys()) == set(tensors)
        ours.expect(name for name in tensors if name not in unforeseen)
        for name in tensors:
            got, expected = ours.get_tensor(name), theirs.get_tensor(name)
            assert (got.dtype, got.shape) == (expected.dtype, expected.shape), name
            assert torch.equal(got.view(-1).view(torch.uint8), expected.view(-1).view(torch.uint8)), name


def test_a_file_that_becomes_shorter_is_no_tensor(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.ones(1000)}, path)
    with DeviceTensors(path, CPU) as file:
        with path.open("r+b") as shorter:
            shorter.truncate(path.stat().st_size - 10)
        with pytest.raises(OSError, match="it ends 10 bytes early"):
            file.get_tensor("a")
