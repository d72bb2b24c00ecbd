"""What a Whisper folder may look like, and how it is said that one cannot be read."""

import json
import shutil

import pytest
import torch
import whisper_folders
from whisper_folders import TEXT, special_names

from mmcli.engine.inputs import Inputs
from mmcli.errors import ModelError, UsageError
from mmcli.hub.resolve import resolve
from mmcli.layers import int8_attention
from mmcli.models.load import load
from mmcli.models.whisper.config import WhisperConfig


@pytest.fixture
def folder(whisper, tmp_path):
    return shutil.copytree(whisper.checkpoint.folder, tmp_path / "copy")


def opened(folder):
    return load(resolve(str(folder)), "cpu", "float32").processor


def edit(path, **changes):
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"activation_function": "relu"}, "activation_function"),
        ({"scale_embedding": True}, "scale_embedding"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings"),
        ({"d_model": "wide"}, "d_model"),
        ({"encoder_attention_heads": 5}, "This Whisper's 384 numbers cannot be split among 5 heads .encoder."),
    ],
)
def test_configurations_that_are_not_supported(changes, message):
    with pytest.raises(ModelError, match=message):
        WhisperConfig.from_hf({"model_type": "whisper"} | changes)


def test_special_tokens(whisper):
    special = whisper.processor.special
    assert special.languages == {"en": TEXT + 2, "de": TEXT + 3, "fr": TEXT + 4}
    assert special.times == TEXT + len(special_names(True)) and special.alignment_heads == ((1, 0), (2, 2))
    assert special.no_times in special.suppressed and special.suppressed_first == (7, TEXT)
    assert whisper.processor.seconds(special.times + 50) == pytest.approx(1.0)


def test_without_generation_config_the_tokenizer_tells(whisper, folder):
    (folder / "generation_config.json").unlink()
    special = opened(folder).special
    assert special.no_times == whisper.processor.special.no_times and special.alignment_heads is None
    assert special.languages == {}  # a vocabulary this small is English only, by its rows


def test_a_tokenizer_in_parts(whisper, folder):
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    added = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    missing = {name: id for name, id in added.items() if not name.startswith("<|")}
    (folder / "vocab.json").write_text(json.dumps(vocabulary | missing))
    merges = [" ".join(merge) if isinstance(merge, list) else merge for merge in tokenizer["model"]["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges))
    (folder / "added_tokens.json").write_text(
        json.dumps({name: id for name, id in added.items() if name.startswith("<|")})
    )
    (folder / "tokenizer.json").unlink()
    processor = opened(folder)
    assert processor.prompt("translate", "de", "hello cat", True) == whisper.processor.prompt(
        "translate", "de", "hello cat", True
    )
    assert processor.decode([30, 40, 260]) == whisper.processor.decode([30, 40, 260])


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "neither tokenizer.json nor"),
        (lambda folder: edit(folder / "preprocessor_config.json", feature_size=128), "feature_size"),
        (lambda folder: edit(folder / "preprocessor_config.json", hop_length=100), "hop_length"),
        (lambda folder: edit(folder / "generation_config.json", no_timestamps_token_id=99_999), "different models"),
    ],
)
def test_damaged_folders(folder, damage, message):
    damage(folder)
    with pytest.raises(ModelError, match=message):
        opened(folder)


def test_an_english_only_model_knows_no_other_language(tmp_path):
    whisper_folders.write_checkpoint(tmp_path, multilingual=False)
    processor = opened(tmp_path)
    assert not processor.multilingual and processor.capabilities.languages == ("en",)
    assert len(processor.prompt("transcribe", "en", None, True)) == 1
    for task, language in (("translate", None), ("transcribe", "de")):
        with pytest.raises(UsageError, match="only English"):
            processor.prompt(task, language, None, True)


@pytest.mark.parametrize(("dtype", "whole"), [("auto", True), ("float32", False)])
def test_only_who_names_no_type_gets_products_in_8_bits(tmp_path, monkeypatch, dtype, whole):
    from mmcli.layers.int8 import Int8Linear

    whisper_folders.write_checkpoint(tmp_path)
    monkeypatch.setattr("mmcli.models.whisper.model.int8_pays", lambda: True)
    monkeypatch.setattr("mmcli.models.whisper.model.bfloat16_pays", lambda: False)
    model = load(resolve(str(tmp_path)), "cpu", dtype).model
    assert any(isinstance(part, Int8Linear) for part in model.modules()) is whole


@pytest.mark.parametrize("int8", [True, False])
def test_a_few_parts_in_bfloat16_do_not_change_the_models_type(tmp_path, monkeypatch, int8):
    whisper_folders.write_checkpoint(tmp_path)
    monkeypatch.setattr("mmcli.models.whisper.model.int8_pays", lambda: int8)
    monkeypatch.setattr("mmcli.models.whisper.model.bfloat16_pays", lambda: True)
    loaded = load(resolve(str(tmp_path)), "cpu", "auto")
    assert (loaded.dtype, loaded.quantised) == (torch.float32, int8)
    assert loaded.model.encoder.conv1.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("storage", ["float32", "int8"])
def test_what_is_put_in_int8_is_rounded_as_it_is_read(tmp_path, monkeypatch, storage):
    from mmcli.hub.weights import load_strict
    from mmcli.layers.int8 import ReadInInt8
    from mmcli.models.load import build_empty
    from mmcli.models.registry import family_of

    whisper_folders.write_checkpoint(tmp_path)
    if storage == "int8":
        in_integers(tmp_path / "model.safetensors")
    monkeypatch.setattr("mmcli.models.whisper.model.int8_pays", lambda: True)
    checkpoint = resolve(str(tmp_path))
    family = family_of(checkpoint.config, checkpoint.name)
    models = []
    for expects in (True, False):
        model = build_empty(family, family.read_config(checkpoint.config))
        if expects:
            model.expect_int8()
        load_strict(model, tmp_path, family.rules(model.config), torch.device("cpu"), torch.float32)
        if expects:
            layers = [part for part in model.modules() if isinstance(part, ReadInInt8)]
            assert len(layers) == 2 * 6 + 3 * 10 + 1 and all(part.whole.dtype == torch.int8 for part in layers)
        assert model.quantise()
        models.append(model)
    features, tokens = torch.randn(1, 80, 200), torch.tensor([[3, 9, 4]])
    with torch.inference_mode():
        found = []
        for model in models:
            cache = model.new_cache(1, 3)
            cache.context = model.encode(features)
            found.append(model.logits(model.read(tokens, None, cache)))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("threads", [1, 2])
@torch.inference_mode()
def test_in_int8_a_row_has_the_same_digits_in_any_batch(tmp_path, monkeypatch, threads):
    whisper_folders.write_checkpoint(tmp_path)
    for probe in ("int8_pays", "bfloat16_pays"):
        monkeypatch.setattr(f"mmcli.models.whisper.model.{probe}", lambda: True)
    model = load(resolve(str(tmp_path)), "cpu").model
    torch.manual_seed(0)
    features, tokens = torch.randn(5, 80, 200), torch.randint(4, 60, (5, 6))

    def logits(rows):
        cache, steps = model.new_cache(len(rows), 6), tokens[rows]
        encoded = model.encode(features[rows])
        assert not int8_attention.works() or encoded.whole[0][0].dtype == torch.uint8
        given = Inputs(steps[:, :3], torch.ones(len(rows), 3, dtype=torch.bool), context=encoded)
        return [model.prefill(given, cache), *(model.step(steps[:, at], cache) for at in (3, 4, 5))]

    together, before = logits([0, 1, 2, 3, 4]), torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        for row in range(5):
            for whole, alone in zip(together, logits([row]), strict=True):
                assert torch.equal(whole[row], alone[0])
    finally:
        torch.set_num_threads(before)


def in_integers(path):
    """Rewrite a file of weights with its matrices in int8, a scale a row, as the recipe does."""
    from safetensors.torch import load_file, save_file

    from mmcli.hub.quantized import quantize

    tensors = {}
    for name, tensor in load_file(path).items():
        if tensor.ndim == 2 and "position" not in name:
            tensors[name], tensors[name + "_scale"] = quantize(tensor, "int8")
        else:
            tensors[name] = tensor
    save_file(tensors, path)
