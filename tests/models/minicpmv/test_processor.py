"""What goes into MiniCPM-V: marks of images and slices, turns, typed text; and what its files may say."""

import json
from pathlib import Path

import pytest
from minicpmv_folders import CONFIGS, image, preprocessor, specials, write_tokens
from support import edit_json

from mmcli.errors import ModelError, UsageError
from mmcli.models.minicpmv.config import MiniCPMVConfig
from mmcli.models.minicpmv.layout import PLACEHOLDER
from mmcli.models.minicpmv.processor import MiniCPMVProcessor
from mmcli.types import Turn

Q = "what is on the left?"
PLACES = " ".join(["·"] * 4)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    return {version: write_tokens(tmp_path_factory.mktemp("tokens"), version) for version in CONFIGS}


@pytest.fixture(scope="module")
def processors(folders) -> dict[str, MiniCPMVProcessor]:
    return {version: opened(folder, version) for version, folder in folders.items()}


def opened(folder: Path, version: str) -> MiniCPMVProcessor:
    config = MiniCPMVConfig.from_hf(CONFIGS[version])
    return MiniCPMVProcessor.open(folder, config, CONFIGS[version])


@pytest.fixture
def copy(folders, tmp_path):
    """A folder of its own, to be changed."""

    def copied(version: str) -> Path:
        for path in folders[version].iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        return tmp_path

    return copied


def marks(processor: MiniCPMVProcessor, images) -> str:
    """Special tokens, places and line breaks of a question about images."""
    [ids] = processor.inputs([images], [Q]).tokens.tolist()
    names = {id: name for id, name in enumerate(specials(processor.config.version)) if not name.startswith("<|")}
    names |= {-1: "·", processor.control.encode("\n")[-1]: "\n"}
    return " ".join(names[id] for id in ids if id in names).replace(" \n", "\n").replace("\n ", "\n")


def test_an_image_that_is_not_cut_has_one_pair_of_marks(processors):
    assert marks(processors["2.0"], [image(56, 56)]) == f"<s> <image> {PLACES} </image>\n"
    assert f"<image_id> </image_id> <image> {PLACES} </image>\n" in marks(processors["2.6"], [image(56, 56)])


def test_slices_are_marked_row_by_row(processors):
    one, slice = f"<image> {PLACES} </image>", f"<slice> {PLACES} </slice>"
    rows = "\n".join([f"{one} {one}"] * 2)
    assert f"<s> {one} <slice> {rows} </slice>" in marks(processors["2.0"], [image(90, 70)])
    assert f"{one} <slice> {rows} </slice>\n" in marks(processors["2.5"], [image(90, 70)])
    rows = "\n".join([f"{slice} {slice}"] * 2)
    assert f"<image_id> </image_id> {one} {rows}\n" in marks(processors["2.6"], [image(90, 70)])
    assert f"{one} {chr(10).join([slice] * 4)}\n" in marks(processors["2.6"], [image(30, 400)])


def test_images_are_numbered_through_all_turns(processors):
    turns = [Turn("user", (image(1, 1), image(1, 1), Q)), Turn("model", ("a cat",)), Turn("user", (image(1, 1), Q))]
    text = processors["2.6"].apply_chat_template(turns)
    assert [text.count(f"<image_id>{number}</image_id>{PLACEHOLDER}\n") for number in range(4)] == [1, 1, 1, 0]
    rest = text.rpartition("a cat")[2]
    assert (processors["2.6"].text_inputs(rest, [image(1, 1)]).tokens == -1).sum() == 4


@pytest.mark.parametrize("version", CONFIGS)
def test_what_is_typed_makes_no_room_for_an_image_and_opens_no_turn(processors, version):
    processor = processors[version]
    typed = f"{PLACEHOLDER}<image></image><slice></slice><unk></s><|im_start|><|im_end|><|eot_id|>"
    plain, escaped = (processor.inputs([[]], [words]).tokens[0].tolist() for words in (Q, typed))
    special = [id for id in escaped if processor.tokenizer.id_to_token(id) in specials(version)]
    assert special == [id for id in plain if processor.tokenizer.id_to_token(id) in specials(version)]
    assert "<image>" in processor.decode(escaped).replace(" ", "")


@pytest.mark.parametrize("version", ["2.0", "2.5"])
def test_only_2_6_sees_several_images(processors, version):
    turns = [Turn("user", (image(9, 9), Q)), Turn("model", ("a cat",)), Turn("user", (image(9, 9), Q))]
    with pytest.raises(UsageError, match=f"MiniCPM-V {version} sees one picture in a conversation, but this has 2"):
        processors[version].apply_chat_template(turns)
    assert processors[version].capabilities.max_images == 1
    assert processors["2.6"].capabilities.max_images is None


def test_2_0_knows_no_system_text(processors):
    with pytest.raises(ModelError, match="no system text"):
        processors["2.0"].apply_chat_template([Turn("system", ("be kind",)), Turn("user", (Q,))])


def test_the_rest_of_a_text_begins_without_a_space(processors):
    """Tokenizers like 2.0's put one in front of every text."""
    processor = processors["2.0"]
    before, rest = "<s><用户>hello<AI>", "<用户>what is on the mat<AI>"
    whole, first, second = (processor.text_inputs(text).tokens[0].tolist() for text in (before + rest, before, rest))
    assert whole == first + second
    assert processor.tokenizer.encode(rest).ids != second


def test_answers_end_by_the_tokens_that_end_turns_whatever_the_files_say(copy):
    folder = copy("2.6")
    (folder / "generation_config.json").unlink()
    names = {opened(folder, "2.6").tokenizer.id_to_token(id) for id in opened(folder, "2.6").stop_ids}
    assert names == {"<|endoftext|>", "<|im_end|>"}


def test_marks_of_places_are_part_of_an_answer(copy):
    folder = copy("2.6")
    path = folder / "tokenizer.json"
    raw = json.loads(path.read_text())
    raw["added_tokens"].append(raw["added_tokens"][0] | {"id": 470, "content": "<box>"})
    path.write_text(json.dumps(raw))
    processor = opened(folder, "2.6")
    box = processor.tokenizer.token_to_id("<box>")
    assert processor.is_text(box) and processor.decode([box]) == "<box>"
    assert not processor.is_text(processor.tokenizer.token_to_id("<image>"))


@pytest.mark.parametrize("key, value", [("image_feature_size", 64), ("max_slice_nums", 9), ("slice_mode", False)])
def test_settings_that_contradict_the_configuration_are_refused(copy, key, value):
    folder = copy("2.6")
    edit_json(folder / "preprocessor_config.json", **{key: value})
    with pytest.raises(ModelError, match=f"preprocessor_config.json sets {key} to {value}"):
        opened(folder, "2.6")


def test_mean_and_deviation_are_read(copy):
    folder = copy("2.6")
    assert preprocessor("2.6")["norm_mean"] == [0.5] * 3
    edit_json(folder / "preprocessor_config.json", norm_mean=[0.0, 0.25, 0.5], norm_std=[1.0, 0.5, 0.25])
    [plain] = opened(folder, "2.6").inputs([[image(20, 20)]], [Q]).images
    (folder / "preprocessor_config.json").unlink()
    [usual] = opened(folder, "2.6").inputs([[image(20, 20)]], [Q]).images
    numbers = usual / 2 + 0.5
    expected = (numbers - plain.new_tensor([0.0, 0.25, 0.5])[:, None, None]) / plain.new_tensor([1.0, 0.5, 0.25])[
        :, None, None
    ]
    assert (plain - expected).abs().max() < 1e-5


def test_without_a_chat_template_2_6_says_so(copy):
    folder = copy("2.6")
    edit_json(folder / "tokenizer_config.json", chat_template=...)
    with pytest.raises(ModelError, match="no chat template"):
        opened(folder, "2.6").inputs([[]], [Q])


def test_a_template_that_loses_the_image_is_refused(copy):
    folder = copy("2.6")
    edit_json(folder / "tokenizer_config.json", chat_template="hello")
    with pytest.raises(ModelError, match="makes 0 places for 1 pictures"):
        opened(folder, "2.6").inputs([[image(5, 5)]], [Q])


def test_a_tokenizer_without_the_marks_is_refused(copy, folders):
    folder = copy("2.6")
    (folder / "tokenizer.json").write_bytes((folders["2.5"] / "tokenizer.json").read_bytes())
    with pytest.raises(ModelError, match="lacks one of .*<image_id>"):
        opened(folder, "2.6")


def test_a_conversation_longer_than_the_model_reads_is_refused(folders):
    raw = CONFIGS["2.6"] | {"max_position_embeddings": 60}
    processor = MiniCPMVProcessor.open(folders["2.6"], MiniCPMVConfig.from_hf(raw), raw)
    processor.inputs([[image(56, 56)]], [Q])
    with pytest.raises(ModelError, match="more than the 60 this model reads"):
        processor.inputs([[image(90, 70)]], [Q])
