"""What a Llama 3.2 Vision's files may say, and what is said of those that say something else."""

import json

import mllama_folders as folders
import pytest

from mmcli.errors import ModelError
from mmcli.models.mllama.config import MllamaConfig
from mmcli.models.mllama.processor import MllamaProcessor
from mmcli.models.mllama.tiles import arrangements, choose, fitted


def changed(**changes) -> dict:
    """The small configuration with other values: `vision` and `text` are within those parts."""
    raw = folders.tiny_raw()
    for part in ("text", "vision"):
        raw[f"{part}_config"] |= changes.pop(part, {})
    return raw | changes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_token_index": folders.ROWS + 8}, "image_token_index to 400; expected a whole number from 0 to 399"),
        ({"image_token_index": folders.BOS}, "expected a token of its own"),
        ({"text_config": 3}, "text_config to 3, which is no JSON object"),
        ({"text": {"cross_attention_layers": [5]}}, "cross_attention_layers .* from 0 to 4"),
        ({"text": {"cross_attention_layers": 3}}, "text_config.cross_attention_layers to 3; expected a list"),
        ({"text": {"cross_attention_layers": [0, 1, 2, 3, 4]}}, "expected fewer than all 5 layers"),
        ({"text": {"tie_word_embeddings": True}}, "tie_word_embeddings to True; supported is False"),
        ({"text": {"hidden_act": "gelu"}}, "text_config.hidden_act to 'gelu'"),
        ({"text": {"num_attention_heads": 5, "num_key_value_heads": 5}}, "48 numbers .* among 5 heads"),
        ({"text": {"rope_parameters": {"rope_type": "yarn"}}}, "'yarn' rope"),
        ({"text": {"pad_token_id": -1}}, "text_config.pad_token_id to -1"),
        ({"vision": {"hidden_act": "relu"}}, "vision_config.hidden_act to 'relu'"),
        ({"vision": {"attention_heads": 5}}, "32 numbers cannot be split among 5 heads"),
        ({"vision": {"image_size": [28, 56]}}, "only squares are supported"),
        ({"vision": {"patch_size": 29}}, "Patches of 29 pixels do not fit into tiles of 28"),
        ({"vision": {"image_size": 4096, "patch_size": 1}}, "at most 16384 patches"),
        ({"vision": {"max_num_tiles": 0}}, "max_num_tiles to 0; expected a whole number from 1 to 16"),
        ({"vision": {"max_num_tiles": 10**9}}, "max_num_tiles to 1000000000"),
        ({"vision": {"intermediate_layers_indices": [4]}}, "intermediate_layers_indices .* from 0 to 3"),
        ({"vision": {"vision_output_dim": 96}}, "vision_output_dim to 96; supported is 128"),
        ({"vision": {"num_global_layers": "8"}}, "num_global_layers to '8'"),
        ({"vision": {"num_channels": 4}}, "num_channels to 4"),
        ({"vision": {"supported_aspect_ratios": [[1, 1]]}}, "supported_aspect_ratios .* a list of 8"),
        ({"vision": {"supported_aspect_ratios": [[4, 1]] * 8}}, "every arrangement of up to 4 tiles in order"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(changes, words):
    with pytest.raises(ModelError, match=words) as error:
        MllamaConfig.from_hf(changed(**changes))
    assert "\n" not in error.value.what


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processor")
    folders.write_processor(folder)
    return folder


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": {"height": 56, "width": 56}}, "up to 4 tiles of .*56.* takes 4 of 28 × 28 pixels"),
        ({"size": {"height": 28, "width": 56}}, "takes 4 of 28 × 28 pixels"),
        ({"size": {"longest_edge": 28}}, "takes 4 of 28 × 28 pixels"),
        ({"max_image_tiles": 2}, "up to 2 tiles .* takes 4"),
        ({"max_image_tiles": 99}, "max_image_tiles to 99"),
        ({"do_pad": False}, "leaves images as large as they are"),
        ({"resample": 9}, "resample to 9"),
        ({"image_std": [0, 1, 1]}, "image_std"),
    ],
)
def test_settings_that_do_not_suit_the_tower_are_refused(whole, tmp_path, changes, words):
    for path in whole.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    settings = json.loads((whole / "processor_config.json").read_text())
    settings["image_processor"] |= changes
    (tmp_path / "processor_config.json").write_text(json.dumps(settings))
    raw = folders.tiny_raw()
    with pytest.raises(ModelError, match=words):
        MllamaProcessor.open(tmp_path, MllamaConfig.from_hf(raw), raw)


def test_a_tokenizer_of_another_model_is_refused(whole):
    raw = folders.tiny_raw(vocab_size=folders.ROWS + 50) | {"image_token_index": folders.ROWS + 51}
    with pytest.raises(ModelError, match="names the token 443, which tokenizer.json does not have"):
        MllamaProcessor.open(whole, MllamaConfig.from_hf(raw), raw)


@pytest.mark.parametrize(
    ("size", "canvas", "image"),
    [
        ((560, 560), (1, 1), (560, 560)),
        ((1, 1), (1, 1), (560, 560)),
        ((561, 100), (2, 1), (561, 100)),
        ((300, 600), (1, 2), (300, 600)),
        ((5000, 30), (4, 1), (2240, 13)),
        ((1000, 1000), (2, 2), (1000, 1000)),
        ((4000, 4000), (2, 2), (1120, 1120)),
        ((3000, 1), (4, 1), (2240, 1)),
    ],
)
def test_canvases(size, canvas, image):
    """(height, width) → (rows, columns) of tiles, and the size of the image on them."""
    assert choose(*size, 560, 4) == canvas
    assert fitted(*size, *canvas, 560) == image


def test_there_are_eight_canvases_of_up_to_four_tiles():
    assert arrangements(4) == ((1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 2), (3, 1), (4, 1))
