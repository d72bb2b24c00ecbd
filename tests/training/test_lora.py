"""LoRA: our layers against PEFT's on the transformers model, merged against unmerged, and what is no such adapter."""

import json
import shutil
from dataclasses import replace

import pytest
import support
import torch
import whisper_folders
from command import mmcli
from peft import PeftModel
from safetensors.torch import load_file, save_file

from mmcli.errors import ModelError
from mmcli.hub.resolve import resolve
from mmcli.layers.lora import LoraConfig, adapt
from mmcli.models.adapter import CONFIG, WEIGHTS, write_adapter
from mmcli.models.load import load

EXACT = {"rtol": 1e-4, "atol": 1e-5}
CONFIGS = (LoraConfig(rank=3, alpha=5.0), LoraConfig(rank=4, alpha=8.0, stabilised=True))


def adapted(folder, config, target):
    """A loaded model with random adapters in it, and their folder."""
    loaded = load(resolve(str(folder)), "cpu", torch.float32, fused=False)
    teaching = loaded.family.teaching
    torch.manual_seed(0)
    layers = adapt(loaded.model, config, teaching.adapted_in, teaching.adapted)
    assert len(layers) > 3
    for layer in layers.values():
        torch.nn.init.normal_(layer.b, std=0.3)
    target.mkdir()
    write_adapter(target, layers, config, loaded.family.rules(loaded.config), teaching.modules, "base")
    return loaded


def answer(loaded):
    inputs = loaded.processor.inputs([[support.random_image()]], ["caption en"])
    with torch.inference_mode():
        return loaded.model.prefill(inputs, loaded.model.new_cache(*inputs.tokens.shape))[:, : support.IMAGE]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("second", [False, True])
def test_peft_gives_the_same_logits_and_so_does_the_merged_model(config, second, tmp_path):
    reference = support.tiny_reference(support.tiny_config(second), 1)
    processor = support.write_checkpoint(tmp_path / "base", reference)
    loaded = adapted(tmp_path / "base", config, tmp_path / "adapter")
    inputs = processor(images=[support.random_image()], text=["<image>caption en"], return_tensors="pt")
    inputs.pop("labels", None)
    before = reference(**inputs).logits[:, -1, : support.IMAGE].clone()
    theirs = PeftModel.from_pretrained(reference, tmp_path / "adapter")(**inputs).logits[:, -1, : support.IMAGE]
    assert (theirs - before).abs().max() > 0.1, "the adapter is to matter"
    torch.testing.assert_close(answer(loaded), theirs, **EXACT)
    checkpoint = replace(resolve(str(tmp_path / "base")), adapter=tmp_path / "adapter")
    torch.testing.assert_close(answer(load(checkpoint, "cpu", torch.float32)), theirs, **EXACT)
    done = mmcli("models", "merge", str(tmp_path / "base"), str(tmp_path / "adapter"), "-o", str(tmp_path / "merged"))
    assert done.code == 0 and done.out == f"{tmp_path / 'merged'}\n"
    torch.testing.assert_close(answer(load(resolve(str(tmp_path / "merged")), "cpu", torch.float32)), theirs, **EXACT)


def test_whisper_in_peft(tmp_path):
    reference = whisper_folders.write_checkpoint(tmp_path / "base")
    loaded = adapted(tmp_path / "base", CONFIGS[0], tmp_path / "adapter")
    features = torch.randn(1, 80, loaded.config.frames)
    with torch.inference_mode():
        theirs = PeftModel.from_pretrained(reference, tmp_path / "adapter").base_model.model.model.encoder(features)
        torch.testing.assert_close(loaded.model.encoder(features), theirs.last_hidden_state, **EXACT)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    support.write_checkpoint(folder / "base", support.tiny_reference(support.tiny_config(False), 1))
    adapted(folder / "base", CONFIGS[0], folder / "adapter")
    return folder


def changed(**settings):
    def change(folder):
        path = folder / CONFIG
        path.write_text(json.dumps(json.loads(path.read_text()) | settings))

    return change


def renamed(old, new):
    def change(folder):
        tensors = load_file(folder / WEIGHTS)
        save_file({name.replace(old, new): tensor for name, tensor in tensors.items()}, folder / WEIGHTS)

    return change


def cut_short(folder):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])


FAULTS = {
    "no adapter": (lambda folder: (folder / CONFIG).unlink(), "has no adapter_config.json"),
    "another kind": (changed(peft_type="IA3"), "of the kind 'IA3'"),
    "DoRA": (changed(use_dora=True), "use_dora"),
    "more modules": (changed(modules_to_save=["lm_head"]), "modules_to_save"),
    "biases": (changed(bias="all"), "biases"),
    "no number": (changed(lora_alpha="x"), "lora_alpha"),
    "another model's": (renamed("language_model", "text_model"), "which this model does not have"),
    "half a pair": (renamed("lora_B", "lora_A.x"), "lora_A.x"),
    "cut short": (cut_short, WEIGHTS),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_no_such_adapter_is_named(fault, sound, tmp_path):
    shutil.copytree(sound / "adapter", tmp_path / "adapter")
    change, words = FAULTS[fault]
    change(tmp_path / "adapter")
    with pytest.raises(ModelError, match=words):
        load(replace(resolve(str(sound / "base")), adapter=tmp_path / "adapter"), "cpu", torch.float32)


def test_an_adapter_that_is_missing_is_named_before_the_weights_are_read(sound, tmp_path):
    shutil.copytree(sound / "base", tmp_path / "base")
    (tmp_path / "base" / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match="holds no adapter"):
        load(replace(resolve(str(tmp_path / "base")), adapter=tmp_path / "gone"), "cpu", torch.float32)
