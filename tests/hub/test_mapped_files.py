"""How much of a mapped weight file is in memory while it is read into parts with a form of their own."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mmcli.hub import weights
from mmcli.hub.weights import Rule, TakesWeights, load_strict

SHAPES = {"weight": (4, 4), "bias": (4,)}
RULES = [Rule("layers.{}.{}", "layers.{}.{}")]


def tensors():
    return {f"layers.{i}.{name}": torch.full(shape, 2.0 + i) for i in range(2) for name, shape in SHAPES.items()}


class Halved(TakesWeights):
    def __init__(self):
        super().__init__()
        self.weight, self.bias = (nn.Parameter(torch.zeros(shape)) for shape in SHAPES.values())

    def take(self, name, tensor, scale, dtype):
        setattr(self, name, nn.Parameter(tensor / 2, requires_grad=False))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(Halved() for _ in range(2))


@pytest.mark.parametrize(("held", "opened"), [(1, 4), (80, 2), (1 << 20, 1)])
def test_what_was_read_of_a_file_is_let_go(tmp_path, monkeypatch, held, opened):
    """The file is opened anew after so many bytes, and every tensor arrives."""
    save_file(tensors(), tmp_path / "model.safetensors")
    monkeypatch.setattr(weights, "HELD", held)
    files = []
    whole = weights.open_weights
    monkeypatch.setattr(weights, "open_weights", lambda *given: files.append(given) or whole(*given))
    with torch.device("meta"):
        module = Model()
    load_strict(module, tmp_path, RULES, torch.device("cpu"), torch.float32)
    for name, tensor in tensors().items():
        assert torch.equal(module.get_parameter(name), tensor / 2)
    assert len(files) == opened
