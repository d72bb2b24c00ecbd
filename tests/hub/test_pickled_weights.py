"""Strict loading of weights that exist only as pickles: as strict as that of safetensors."""

import json

import pytest
import torch
from pickles import old, saved, write_shards
from safetensors.torch import save_file
from torch import nn

from mmcli.errors import ModelError
from mmcli.hub.quantized import parameter_count
from mmcli.hub.weights import Rule, load_strict

RULES = [
    Rule("table.weight", "table.weight"),
    Rule("proj.{}", "layer.{}"),
    Rule("head.weight", None, copy_of="table.weight"),
]


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.layer = nn.Embedding(10, 4), nn.Linear(4, 4)


def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {"table.weight": torch.randn(10, 4), "proj.weight": torch.randn(4, 4), "proj.bias": torch.randn(4)}


def load(folder, dtype=torch.float32) -> Small:
    with torch.device("meta"):
        module = Small()
    load_strict(module, folder, RULES, torch.device("cpu"), dtype)
    return module


def assert_loaded(module: Small) -> None:
    for name, value in tensors().items():
        assert torch.equal(module.state_dict()[name.replace("proj", "layer")], value)
    assert not any(parameter.requires_grad for parameter in module.parameters())


def pickled_shards(folder, **more) -> None:
    items = list(tensors().items())
    write_shards(folder, [dict(items[:2]), dict(items[2:])], **more)


@pytest.mark.parametrize("write", [saved, old, "shards"], ids=["zip", "old", "shards"])
def test_pickles_where_there_is_nothing_else(tmp_path, write):
    if write == "shards":
        pickled_shards(tmp_path)
    else:
        head = {"head.weight": tensors()["table.weight"]}
        (tmp_path / "pytorch_model.bin").write_bytes(write(tensors() | head))
    assert_loaded(load(tmp_path))
    assert load(tmp_path, torch.bfloat16).table.weight.dtype == torch.bfloat16
    assert parameter_count(tmp_path) == sum(one.numel() for one in tensors().values()) + 40 * (write != "shards")


def test_safetensors_win_over_pickles(tmp_path):
    save_file(tensors(), tmp_path / "model.safetensors")
    (tmp_path / "pytorch_model.bin").write_bytes(b"never opened")
    assert_loaded(load(tmp_path))


def test_pickles_are_as_strict(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    for content, message in (
        (tensors() | {"extra": torch.ones(1)}, "holds extra, for which"),
        ({name: one for name, one in tensors().items() if name != "table.weight"}, "lacks the weights of table.weight"),
        (tensors() | {"table.weight": torch.ones(4, 10)}, r"has the shape \[4, 10\]"),
        (tensors() | {"table.weight": torch.ones(10, 4, dtype=torch.int32)}, "of the type I32"),
        (tensors() | {"head.weight": torch.ones(10, 4)}, "differs from table.weight"),
    ):
        path.write_bytes(saved(content))
        with pytest.raises(ModelError, match=message):
            load(tmp_path)


def pickled(change):
    def damage(folder):
        pickled_shards(folder)
        change(folder)

    return damage


def pickled_index_with(value):
    def damage(folder):
        path = folder / "pytorch_model.bin.index.json"
        content = json.loads(path.read_text())["weight_map"]
        path.write_text(json.dumps({"weight_map": content | {"table.weight": value}}))

    return pickled(damage)


DAMAGES = [
    (pickled(lambda folder: (folder / "pytorch_model-00002-of-00002.bin").unlink()), "lacks 1 of 2 weight files"),
    (pickled(lambda folder: (folder / "pytorch_model.bin.index.json").write_text("{")), "index.json"),
    (pickled_index_with("../../pytorch_model.bin"), "does not list bin files beside it"),
    (pickled_index_with("model.safetensors"), "does not list bin files beside it"),
    (
        pickled(lambda folder: pickled_shards(folder, ghost_weight="pytorch_model-00001-of-00002.bin")),
        "lists ghost.weight in pytorch_model.bin.index.json",
    ),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES, ids=range(len(DAMAGES)))
def test_shards_that_do_not_fit_their_index(tmp_path, damage, message):
    damage(tmp_path)
    with pytest.raises(ModelError, match=message):
        load(tmp_path)
