"""What a Florence-2's files may say, and what is refused in a sentence."""

import florence2_folders as folders
import pytest
from support import edit_json

from mmcli.errors import ModelError, UsageError
from mmcli.hub.resolve import resolve
from mmcli.models.florence2.config import Florence2Config
from mmcli.models.load import load


@pytest.fixture(scope="module")
def native():
    return folders.tiny_config().to_dict()


@pytest.fixture(scope="module")
def vendor():
    return folders.vendor_config(folders.tiny_config())


def changed(raw: dict, path: str, value) -> dict:
    *parts, last = path.split(".")
    raw = raw | {}
    at = raw
    for part in parts:
        at[part] = dict(at[part])
        at = at[part]
    at[last] = value
    return raw


def test_both_layouts_say_the_same(native, vendor):
    one, other = Florence2Config.from_hf(native), Florence2Config.from_hf(vendor)
    assert (one.native, other.native) == (True, False)
    assert one.vision == other.vision and one.text == other.text


@pytest.mark.parametrize(
    "path, value, message",
    [
        ("vision_config.depths", [1, 1, 9], "depths to .*; expected a list of 4"),
        (
            "vision_config.activation_function",
            "relu",
            "activation_function to 'relu'; supported is 'gelu'",
        ),
        ("vision_config.projection_dim", 47, "projection_dim to 47; expected text_config.d_model, 48"),
        ("vision_config.num_groups", [3, 2, 8, 5], "16 numbers cannot be split among 2 heads and 3 groups"),
        ("vision_config.patch_prenorm", [1, 1, 1, 1], "a list of true and false"),
        ("text_config.encoder_attention_heads", 5, "48 numbers cannot be split among 5 heads"),
        ("text_config.activation_function", "relu", "activation_function"),
        ("text_config.decoder_start_token_id", 99_999, "decoder_start_token_id"),
        ("tie_word_embeddings", False, "tie_word_embeddings"),
        ("vision_config", 3, "no JSON object"),
    ],
)
def test_what_is_not_supported_is_refused(native, path, value, message):
    with pytest.raises(ModelError, match=f"(?s)This Florence-2.*{message}"):
        Florence2Config.from_hf(changed(native, path, value))


@pytest.mark.parametrize(
    "path, value", [("image_pos_embed", {"type": "other"}), ("image_feature_source", ["last_frame"])]
)
def test_other_positions_and_features_of_the_vendors_are_refused(vendor, path, value):
    with pytest.raises(ModelError, match="supported is"):
        Florence2Config.from_hf(changed(vendor, f"vision_config.{path}", value))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("florence2")
    folders.write_checkpoint(folder, folders.tiny_reference())
    return folder


@pytest.mark.parametrize(
    "file, change, message",
    [
        ("generation_config.json", {"num_beams": 0}, "num_beams"),
        ("generation_config.json", {"do_sample": True}, "do_sample"),
        ("generation_config.json", {"early_stopping": "never"}, "early_stopping"),
        (
            "generation_config.json",
            {"forced_eos_token_id": 7},
            "to 7; expected the token that ends",
        ),
    ],
)
def test_settings_of_writing_that_are_not_known_are_refused(folder, tmp_path, file, change, message):
    for one in folder.iterdir():
        (tmp_path / one.name).write_bytes(one.read_bytes())
    edit_json(tmp_path / file, **change)
    with pytest.raises(ModelError, match=message):
        load(resolve(str(tmp_path)), "cpu", "float32")


def test_prompts_and_answers_have_their_limits(folder):
    loaded = load(resolve(str(folder)), "cpu", "float32")
    from support import random_image

    with pytest.raises(UsageError, match="The prompt has .* tokens, and Florence-2 reads 116. Shorten it"):
        loaded.processor.inputs([[random_image()]], ["x " * 200])
    with pytest.raises(UsageError, match="writes at most 128 tokens. Lower --max-tokens"):
        loaded.model.new_cache(1, 129)
    with pytest.raises(UsageError, match="exactly one picture"):
        loaded.processor.inputs([[random_image(), random_image()]], ["<OD>"])
    with pytest.raises(UsageError, match="<image>"):
        loaded.processor.inputs([[random_image()]], ["what is <image>"])
