"""Load, save, load: every family's weights come back bit by bit, and what is not fused computes the same."""

import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import support
import torch
import torch.nn.functional as F
import whisper_folders
from every_family import FAMILIES, write_family

from mmcli.hub.quantized import multiplied, quantize
from mmcli.hub.resolve import resolve
from mmcli.hub.save import checkpoint_name, save_weights
from mmcli.hub.weights import Rule
from mmcli.layers import weight_only
from mmcli.layers.int8 import Int8Linear
from mmcli.layers.int8_step import step_kind
from mmcli.layers.linear import stack
from mmcli.models.load import load, parts_in_integers

pytestmark = pytest.mark.usefixtures("shallow_tower")


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory) -> Path:
    """A small checkpoint as `transformers` saves it; nano as it is bundled."""
    if request.param == "nano":
        return resolve("nano").folder
    return write_family(tmp_path_factory.mktemp("checkpoint"), request.param)


@pytest.fixture(scope="module")
def unfused(folder):
    return load(resolve(str(folder)), "cpu", "float32", fused=False)


@pytest.fixture(scope="module")
def multiplied_out(folder):
    """The answer of weights in integers as a GPU reads prompts with them, and the model."""

    @cache
    def made(storage):
        with pytest.MonkeyPatch.context() as patched:
            loaded = in_integers(folder, patched, storage, as_on_gpus=True)
            return answer(loaded), loaded

    return made


def answer(loaded) -> torch.Tensor:
    """Logits of the first token, of an image and a prompt or of a recording."""
    if not loaded.processor.capabilities.answers:
        states = loaded.model.encoder(torch.from_numpy(np.sin(np.arange(80 * 200, dtype=np.float32))).view(1, 80, 200))
        return torch.cat([part for layer in loaded.model.decoder.layers for part in layer.cross.keys_values(states)])
    inputs = loaded.processor.inputs([[support.random_image()]], [loaded.processor.task_prompt("caption", "")])
    with torch.inference_mode():
        return loaded.model.prefill(inputs, loaded.model.new_cache(*inputs.tokens.shape))


def test_weights_come_back_bit_by_bit(folder, unfused, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(folder, again, ignore=shutil.ignore_patterns("model*.safetensors*"))
    rules = unfused.family.rules(unfused.config)
    save_weights(unfused.model.state_dict(), again / "model.safetensors", rules)
    state = load(resolve(str(again)), "cpu", "float32", fused=False).model.state_dict()
    assert state.keys() == unfused.model.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in unfused.model.state_dict().items())


def test_fusing_changes_no_answer(folder, unfused):
    fused = load(resolve(str(folder)), "cpu", "float32")
    torch.testing.assert_close(answer(fused), answer(unfused), rtol=1e-3, atol=1e-3)


def test_a_fused_model_is_not_saved(tmp_path):
    whisper_folders.write_checkpoint(tmp_path)
    fused = load(resolve(str(tmp_path)), "cpu", "float32")
    with pytest.raises(ValueError, match="no checkpoint has a name for .*qkv"):
        save_weights(fused.model.state_dict(), tmp_path / "again.safetensors", fused.family.rules(fused.config))
    assert not (tmp_path / "again.safetensors").exists()


def test_the_first_rule_gives_the_name():
    rules = [Rule("dropped.{}", None), Rule("new.{}.k.{}", "layers.{}.key.{}"), Rule("old.{}.k.{}", "layers.{}.key.{}")]
    assert checkpoint_name(rules, "layers.3.key.bias") == "new.3.k.bias"
    with pytest.raises(ValueError, match="layers.3.value.bias"):
        checkpoint_name(rules, "layers.3.value.bias")


@pytest.mark.parametrize("kind", [Int8Linear, step_kind()])
def test_quantised_layers_fuse_to_the_same_numbers(kind):
    torch.manual_seed(0)
    layers = [torch.nn.Linear(32, width, bias=width != 8) for width in (16, 8, 24)]
    quantised = [kind(layer.weight.detach(), layer.bias) for layer in layers]
    x = torch.randn(3, 5, 32)
    assert torch.equal(stack(*quantised)(x), torch.cat([layer(x) for layer in quantised], -1))


def in_integers(folder, monkeypatch, storage, *, as_on_gpus: bool):
    """The model with its decoder in integers, even small weights; `as_on_gpus`: multiplied out, as there in prompts."""
    monkeypatch.setattr(weight_only, "LEAST", 1)
    if as_on_gpus:
        monkeypatch.setattr("mmcli.models.load.for_cpu", lambda model: None)
        monkeypatch.setattr(weight_only, "int8_product", lambda x, w, s: F.linear(x.float(), multiplied(w, s)))
    return load(resolve(str(folder)), "cpu", "float32", fused=not as_on_gpus, quantize=storage)


@pytest.mark.parametrize("storage", ["int8", "int4"])
def test_weights_in_integers_are_those_of_the_checkpoint_rounded(folder, unfused, multiplied_out, storage):
    exact, loaded = multiplied_out(storage)
    parts = {name: part for name, part in loaded.model.named_modules() if isinstance(part, weight_only.InIntegers)}
    assert loaded.storage == storage
    kept = [layer for part in parts_in_integers(unfused.model) for layer in part.modules()]
    layers = [layer for layer in kept if isinstance(layer, torch.nn.Linear)]
    assert parts or all(layer.in_features % 32 for layer in layers)
    rounded = load(resolve(str(folder)), "cpu", "float32", fused=False)
    for name, part in parts.items():
        weight = rounded.model.get_submodule(name).weight
        weight.copy_(multiplied(*quantize(weight, part.storage)))
        error = (weight - unfused.model.get_submodule(name).weight).norm() / weight.norm()
        assert error < {"int8": 0.01, "int4": 0.12}[part.storage]
    torch.testing.assert_close(exact, answer(rounded), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("storage", ["int8", "int4"])
def test_the_cpu_s_form_of_weights_in_integers_computes_the_same(folder, multiplied_out, monkeypatch, storage):
    exact, _ = multiplied_out(storage)
    got = answer(in_integers(folder, monkeypatch, storage, as_on_gpus=False))
    there = exact.isfinite()  # what may not be written is -inf
    assert torch.equal(there, got.isfinite())
    assert (got - exact)[there].norm() / exact[there].norm() < 0.03  # numbers in 8 bits, or in bfloat16
