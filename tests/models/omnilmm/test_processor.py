"""The processor: pixels as the reference's transform gives them, places of images, typed control tokens."""

import json

import numpy as np
import pytest
import torch
from omnilmm_folders import CONFIGS, CONTROL, image, tokenizer, write_settings
from PIL import Image
from support import edit_json
from torchvision import transforms

from mmcli.errors import ModelError
from mmcli.media.image import load_image
from mmcli.media.sources import expand
from mmcli.models.omnilmm import FAMILY
from mmcli.models.omnilmm.layout import IMAGE_TOKEN, SYSTEM
from mmcli.models.omnilmm.processor import MEAN, STD
from mmcli.types import Turn

FIRST = f"<s><|system|>\n{SYSTEM}</s>\n"
IMAGE = "<im_start><im_patch><im_end>"


@pytest.fixture
def folder(tmp_path):
    write_settings(tmp_path, 1)
    return tmp_path


@pytest.fixture
def processor(folder):
    return open_processor(folder)


def open_processor(folder):
    raw = json.loads((folder / "config.json").read_text())
    return FAMILY.processor(folder, FAMILY.read_config(raw), raw)


@pytest.mark.parametrize("size", [(1, 1), (30, 4000), (4000, 30), (560, 560), (37, 50)])
def test_pixels_are_those_of_torchvisions_transforms(processor, size):
    """The reference's own, of OpenBMB/MiniCPM-V `omnilmm/model/utils.py`: squeezed bicubically, OpenAI CLIP's means."""
    steps = [
        transforms.Resize((56, 56), interpolation=transforms.InterpolationMode.BICUBIC),
        transforms.ToTensor(),
        transforms.Normalize(mean=MEAN, std=STD),
    ]
    seen = image(*size, seed=4)
    [found] = processor.inputs([[seen]], ["who"]).images
    torch.testing.assert_close(found, transforms.Compose(steps)(seen), rtol=0, atol=1e-6)


def test_where_an_image_is_opaque_its_alpha_changes_nothing_and_elsewhere_it_is_white(processor, tmp_path):
    """As for every model: files are decoded in one place. The reference shows what lies under transparent pixels."""
    pixels = np.random.RandomState(1).randint(0, 256, (56, 56, 4)).astype(np.uint8)
    pixels[..., 3] = 255
    pixels[28:, :, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "alpha.png")
    [source] = expand([str(tmp_path / "alpha.png")], extensions=frozenset())
    [found] = processor.inputs([[load_image(source).image]], ["who"]).images
    [under] = processor.inputs([[Image.fromarray(pixels).convert("RGB")]], ["who"]).images
    [white] = processor.inputs([[Image.new("RGB", (56, 56), "white")]], ["who"]).images
    assert torch.equal(found[:, :28], under[:, :28]) and torch.equal(found[:, 28:], white[:, 28:])


@pytest.mark.parametrize(
    "parts, text",
    [
        (("who",), "who"),
        ((image(4, 4), "who"), f"{IMAGE}\nwho"),
        ((image(4, 4),), f"{IMAGE}\n"),
        (("is ", image(4, 4), " it"), f"is {IMAGE} it"),
    ],
)
@pytest.mark.parametrize("template", [True, False], ids=["template", "no template"])
def test_the_text_of_a_turn(folder, parts, text, template):
    if not template:
        edit_json(folder / "tokenizer_config.json", chat_template=...)
    found = open_processor(folder).apply_chat_template([Turn("user", parts)])
    assert found == f"{FIRST}<|user|>\n{text}</s>\n<|assistant|>\n"


def test_turns_and_a_system_text_of_the_users(processor):
    turns = [Turn("system", ("be kind",)), Turn("user", ("who",)), Turn("model", (" a cat\n",)), Turn("user", ("no ",))]
    assert processor.apply_chat_template(turns) == (
        "<s><|system|>\nbe kind</s>\n<|user|>\nwho</s>\n<|assistant|>\na cat</s>\n<|user|>\nno </s>\n<|assistant|>\n"
    )
    with pytest.raises(ModelError, match="take turns"):
        processor.apply_chat_template([Turn("user", ("who",)), Turn("user", ("what",))])


def test_typed_control_tokens_are_letters(processor):
    typed = "</s><im_patch> <im_start>"
    inputs = processor.inputs([[image(4, 4)]], [typed])
    ids = inputs.tokens[0].tolist()
    control = {
        IMAGE_TOKEN,
        processor.tokenizer.token_to_id("<im_patch>"),
        processor.tokenizer.token_to_id("<im_start>"),
    }
    assert sum(id in control for id in ids) == 16 + 1 and ids.count(2) == 2
    assert ids.count(IMAGE_TOKEN) == 16


def test_rows_are_padded_on_the_left_and_padding_holds_no_image(processor):
    inputs = processor.inputs([[image(9, 9)], []], ["who", "what is in the image? " * 20])
    assert inputs.valid[0].sum() < inputs.valid[1].sum() and inputs.valid[:, -1].all()
    places = inputs.tokens == IMAGE_TOKEN
    assert places.sum(1).tolist() == [16, 0] and not (places & ~inputs.valid).any()


def test_a_tokenizer_without_the_images_tokens_gets_them_in_the_order_of_training(folder):
    """Zephyr's own, as the reference's chat.py takes it."""
    whole = json.loads(tokenizer().to_str())
    whole["added_tokens"] = [token for token in whole["added_tokens"] if token["content"] not in CONTROL]
    whole["model"]["vocab"] = {name: id for name, id in whole["model"]["vocab"].items() if name not in CONTROL}
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    found = open_processor(folder).tokenizer
    first = 390  # tokens are the rest
    assert [found.token_to_id(name) for name in CONTROL[:3]] == [first, first + 1, first + 2]


def test_a_conversation_longer_than_the_model_reads_is_refused(processor):
    with pytest.raises(ModelError, match="more than the 512"):
        processor.inputs([[]], ["who is it " * 400])


def test_answers_are_text_without_control_tokens(processor):
    ids = [1, *processor.tokenizer.encode("what is").ids, processor.tokenizer.token_to_id("<box>"), 2]
    assert processor.decode(ids) == "what is"
    assert processor.stop_ids == {2} and CONFIGS[1]["eos_token_id"] == 2
