"""`mmcli models quantize`: a folder whose decoder is in integers, and what is refused."""

import json

import pytest
import support
import torch
import whisper_folders

from mmcli.errors import ModelError, UsageError
from mmcli.hub import quantized
from mmcli.hub.quantized import QUANTIZED, multiplied, quantize
from mmcli.hub.resolve import resolve
from mmcli.layers import weight_only
from mmcli.layers.int8_step import StepInt8Table, step_packing_works
from mmcli.models.load import load, memory_estimate
from mmcli.models.quantize import quantize_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small PaliGemma as `transformers` saves it."""
    folder = tmp_path_factory.mktemp("checkpoint")
    support.write_checkpoint(folder, support.tiny_reference(support.tiny_config(False)))
    return folder


@pytest.fixture(autouse=True)
def small_weights_too(monkeypatch):
    monkeypatch.setattr(weight_only, "LEAST", 1)


@pytest.mark.parametrize("storage", ["int8", "int4"])
def test_a_folder_in_integers_is_what_the_option_makes(folder, tmp_path, storage):
    size = quantize_checkpoint(resolve(str(folder)), tmp_path / "small", storage)
    assert json.loads((tmp_path / "small" / "config.json").read_text("utf-8"))[QUANTIZED] == storage
    assert size < sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    saved = load(resolve(str(tmp_path / "small")), "cpu", "float32", fused=False)
    made = load(resolve(str(folder)), "cpu", "float32", fused=False, quantize=storage)
    assert saved.storage == made.storage == storage
    state = made.model.state_dict()
    assert saved.model.state_dict().keys() == state.keys()
    for name, tensor in saved.model.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_a_folder_in_integers_can_be_multiplied_out(folder, tmp_path):
    quantize_checkpoint(resolve(str(folder)), tmp_path / "small", "int8")
    plain = load(resolve(str(tmp_path / "small")), "cpu", "float32", fused=False, quantize="none")
    assert plain.storage is None
    assert not any(isinstance(part, weight_only.InIntegers) for part in plain.model.modules())


@pytest.mark.parametrize("storage", ["int8", "int4"])
def test_it_does_not_matter_how_many_rows_are_quantised_at_a_time(monkeypatch, storage):
    torch.manual_seed(0)
    weight = torch.randn(37, 64).bfloat16()
    whole = quantize(weight, storage)
    monkeypatch.setattr(quantized, "CACHED", 5 * 64)
    for one, other in zip(quantize(weight, storage), whole, strict=True):
        assert one.dtype == other.dtype and torch.equal(one, other)


@pytest.mark.skipif(not step_packing_works(), reason="this PyTorch cannot")
@torch.inference_mode()
def test_on_a_cpu_logits_come_from_packed_integers_where_there_is_room(folder, monkeypatch):
    tokens = torch.tensor([[0, 5, 9]])
    monkeypatch.setattr(weight_only, "memory_limit", lambda: 1000)
    lean = load(resolve(str(folder)), "cpu", "float32", quantize="int8").model.decoder.embedding
    monkeypatch.setattr(weight_only, "memory_limit", lambda: 1 << 30)
    table = load(resolve(str(folder)), "cpu", "float32", quantize="int8").model.decoder.embedding
    assert isinstance(lean, weight_only.QuantisedTable) and isinstance(table, StepInt8Table)
    hidden = torch.randn(3, table.weight.shape[1])
    assert torch.equal(table(tokens), lean(tokens))
    torch.testing.assert_close(table.logits(hidden, 7), lean.logits(hidden, 7), rtol=1e-4, atol=1e-4)


def test_what_cannot_be_quantized_is_refused_and_nothing_is_left(folder, tmp_path):
    target = tmp_path / "small"
    quantize_checkpoint(resolve(str(folder)), target, "int8")
    with pytest.raises(UsageError, match="exists already"):
        quantize_checkpoint(resolve(str(folder)), target, "int8")
    with pytest.raises(UsageError, match="in integers already"):
        quantize_checkpoint(resolve(str(target)), tmp_path / "again", "int4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small"]


def test_a_config_that_names_other_integers_is_a_sentence(folder, tmp_path):
    quantize_checkpoint(resolve(str(folder)), tmp_path / "small", "int8")
    config = tmp_path / "small" / "config.json"
    for wrong in ("int3", 8, None, {"bits": 4}):
        config.write_text(json.dumps(json.loads(config.read_text("utf-8")) | {QUANTIZED: wrong}), "utf-8")
        with pytest.raises(ModelError, match="neither int8 nor int4"):
            load(resolve(str(tmp_path / "small")), "cpu", "float32")


def test_the_estimate_of_memory_knows_of_integers(folder):
    checkpoint = resolve(str(folder))
    whole, eighths, quarters = (
        memory_estimate(checkpoint, torch.float32, quantize=kind) for kind in ("none", "int8", "int4")
    )
    loaded = load(checkpoint, "cpu", "float32", fused=False)
    assert whole == sum(tensor.nbytes for tensor in loaded.model.state_dict().values())
    assert quarters < eighths < whole


@pytest.mark.parametrize("storage", ["int8", "int4"])
def test_layers_that_are_put_together_on_a_cpu_may_be_in_integers(tmp_path, monkeypatch, storage):
    """Those of Whisper are, whose queries, keys and values come from one product everywhere."""
    published = whisper_folders.WhisperConfig
    wide = {"d_model": 64, "decoder_attention_heads": 4}
    monkeypatch.setattr(whisper_folders, "WhisperConfig", lambda **given: published(**given | wide))
    whisper_folders.write_checkpoint(tmp_path / "model")
    loaded = load(resolve(str(tmp_path / "model")), "cpu", "float32", quantize=storage)
    plain = load(resolve(str(tmp_path / "model")), "cpu", "float32", quantize="none")
    rounded = load(resolve(str(tmp_path / "model")), "cpu", "float32", quantize="none", fused=False)
    for part in rounded.model.decoder.modules():
        if isinstance(part, torch.nn.Linear) and part.in_features % 32 == 0:
            part.weight.copy_(multiplied(*quantize(part.weight, storage)))
    one = torch.randn(1, 64)
    for number, layer in enumerate(loaded.model.decoder.layers):
        for x in (one, torch.randn(5, 64)):
            exact = rounded.model.decoder.layers[number].attention.project(x)
            got = layer.attention.project(x)
            assert (got - exact).norm() < 0.02 * exact.norm()
    of_integers, of_floats = (each.model.decoder.layers[0].attention.project(one) for each in (loaded, plain))
    assert not torch.equal(of_integers, of_floats)
