"""LoRA over weights in integers: its gradients, what it keeps for them, and its adapter on every form of the base."""

import json
from dataclasses import replace

import pytest
import support
import torch
from command import mmcli
from torch import nn

from mmcli.example import Example, Exchange
from mmcli.hub.quantized import QUANTIZED, multiplied
from mmcli.hub.resolve import resolve
from mmcli.layers import weight_only
from mmcli.layers.lora import LoraConfig, LoraLinear
from mmcli.models.adapter import write_adapter
from mmcli.models.load import load
from mmcli.models.quantize import quantize_checkpoint
from mmcli.training.loss import token_loss
from mmcli.training.parts import prepare
from mmcli.training.settings import TuneSettings

STORAGES = ("int8", "int4")
SETTINGS = TuneSettings("lora", 1, 2, 1e-3, lora=LoraConfig(rank=4, alpha=8.0))
EXACT = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(autouse=True)
def small_weights_too(monkeypatch):
    monkeypatch.setattr(weight_only, "LEAST", 1)


@pytest.fixture(scope="module", params=STORAGES)
def base(request, tmp_path_factory):
    """A small PaliGemma 2 beside itself in integers."""
    folder = tmp_path_factory.mktemp("base")
    support.write_checkpoint(
        folder / "model", support.tiny_reference(support.tiny_config(True, hidden_size=64, num_hidden_layers=2), 1)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weight_only, "LEAST", 1)
        quantize_checkpoint(resolve(str(folder / "model")), folder / "small", request.param)
    for number in range(2):
        support.random_image(number).save(folder / f"{number}.png")
    return folder


def prepared(base, quantized: bool):
    """The model in integers, or with what these mean, with the same thin matrices beside its weights."""
    how = "auto" if quantized else "none"
    loaded = load(resolve(str(base / "small")), "cpu", torch.float32, fused=False, quantize=how)
    layers = prepare(loaded.model, loaded.family.teaching, SETTINGS)
    for number, layer in enumerate(layers.values()):
        nn.init.normal_(layer.b, std=0.1, generator=torch.Generator().manual_seed(number))
    return loaded, layers


def near(one: torch.Tensor, weight: torch.Tensor) -> bool:
    return torch.allclose((one if one.shape == weight.shape else one.mT).float(), weight, atol=1e-6)


def in_integers(layers):
    return [layer for layer in layers.values() if isinstance(layer.base, weight_only.WeightOnlyLinear)]


def learn(base, loaded) -> torch.Tensor:
    examples = [
        Example("caption", name, images=(base / f"{number}.png",), exchanges=(Exchange(None, name),))
        for number, name in enumerate(("a cat on the mat", "the red ball"))
    ]
    teaching = loaded.family.teaching
    batch = teaching.batch([row for one in examples for row in teaching.rows(loaded, one, None)])
    loss = token_loss(teaching, loaded.model, teaching.states(loaded.model, batch), batch.targets) / batch.learned
    loss.backward()
    return loss.detach()


def test_gradients_are_those_over_what_the_integers_mean(base):
    (whole, of_floats), (small, of_integers) = prepared(base, False), prepared(base, True)
    assert of_floats.keys() == of_integers.keys() and len(of_integers) > 10
    assert 5 < len(in_integers(of_integers)) < len(of_integers)  # the widths of others are no multiple of a group
    torch.testing.assert_close(learn(base, small), learn(base, whole), **EXACT)
    for name, layer in of_integers.items():
        for ours, theirs in ((layer.a.grad, of_floats[name].a.grad), (layer.b.grad, of_floats[name].b.grad)):
            assert theirs.norm() > 0 and (ours - theirs).norm() < 1e-4 * theirs.norm(), name


def test_no_weight_is_kept_multiplied_out_for_the_way_back(base):
    loaded, layers = prepared(base, True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        learn(base, loaded)
    meant = [multiplied(layer.base.stored, layer.base.scale) for layer in in_integers(layers)]
    stored = {layer.base.stored.data_ptr() for layer in in_integers(layers)}
    assert len(stored & {one.data_ptr() for one in kept}) > 3
    for weight in meant:
        assert not [one for one in kept if one.shape in (weight.shape, weight.mT.shape) and near(one, weight)]


def answer(loaded):
    inputs = loaded.processor.inputs([[support.random_image()]], ["caption en"])
    with torch.inference_mode():
        return loaded.model.prefill(inputs, loaded.model.new_cache(*inputs.tokens.shape))[:, : support.IMAGE]


def test_an_adapter_stands_beside_integers_and_in_floats(base, tmp_path):
    """On the base in integers it gives what it gave in training; there and merged the same but for rounding."""
    loaded, layers = prepared(base, True)
    target = tmp_path / "adapter"
    target.mkdir()
    rules, modules = loaded.family.rules(loaded.config), loaded.family.teaching.modules
    write_adapter(target, layers, SETTINGS.lora, rules, modules, "base")
    trained = answer(loaded)
    small = replace(resolve(str(base / "small")), adapter=target)
    again = load(small, "cpu", torch.float32, fused=False)
    assert sum(isinstance(part, LoraLinear) for part in again.model.modules()) == len(in_integers(layers))
    torch.testing.assert_close(answer(again), trained, **EXACT)
    meant = load(small, "cpu", torch.float32, quantize="none")
    assert not any(isinstance(part, LoraLinear) for part in meant.model.modules())
    torch.testing.assert_close(answer(meant), answer(prepared_alike(base, layers)), **EXACT)
    for one in (load(small, "cpu", torch.float32), load(replace(small, folder=base / "model"), "cpu", torch.float32)):
        assert (answer(one) - trained).norm() < 0.2 * trained.norm()  # in the CPU's own form, and on the first weights


def prepared_alike(base, layers):
    loaded, own = prepared(base, False)
    assert own.keys() == layers.keys()
    return loaded


def test_merging_multiplies_integers_out_and_says_so(base, tmp_path):
    loaded, layers = prepared(base, True)
    target = tmp_path / "adapter"
    target.mkdir()
    rules, modules = loaded.family.rules(loaded.config), loaded.family.teaching.modules
    write_adapter(target, layers, SETTINGS.lora, rules, modules, "base")
    done = mmcli("models", "merge", str(base / "small"), str(target), "-o", str(tmp_path / "merged"))
    assert done.code == 0 and "multiplied out" in done.err
    assert QUANTIZED not in json.loads((tmp_path / "merged" / "config.json").read_text("utf-8"))
    merged = load(resolve(str(tmp_path / "merged")), "cpu", torch.float32)
    assert merged.storage is None
    whole = answer(prepared_alike(base, layers))
    assert (answer(merged) - whole).norm() < 2e-3 * whole.norm()  # float16


@pytest.mark.parametrize("base", ["int8"], indirect=True)
def test_only_lora_is_trained_over_integers(base, tmp_path):
    (base / "data.jsonl").write_text(
        "".join(
            json.dumps({"image": f"{number}.png", "prefix": "caption en", "suffix": "a cat"}) + "\n"
            for number in (0, 1)
        )
    )
    common = ["tune", str(base / "data.jsonl"), "--device", "cpu", "--eval", "0", "--steps", "3", "--batch-size", "2"]
    chosen = [*common, "--model", str(base / "small"), "--method", "full", "-o", str(tmp_path / "full")]
    done = mmcli(*chosen)
    assert done.code == 2 and "--method lora" in done.err and not (tmp_path / "full").exists()
    assert mmcli(*chosen, "--quantize", "none").code == 0
    assert QUANTIZED not in json.loads((tmp_path / "full" / "config.json").read_text("utf-8"))
    done = mmcli(*common, "--model", str(base / "model"), "--quantize", "int8", "-o", str(tmp_path / "adapter"))
    assert done.code == 0, done.err
    log = [json.loads(line) for line in (tmp_path / "adapter" / "log.jsonl").read_text("utf-8").splitlines()]
    assert log[-1]["loss"] < log[0]["loss"]
    for more in ((), ("--quantize", "int8")):
        using = ["--model", str(base / "model"), "--adapter", str(tmp_path / "adapter"), *more]
        done = mmcli("caption", str(base / "0.png"), "--json", *using)
        assert done.code == 0 and done.records[0]["settings"]["adapter"], done.err
