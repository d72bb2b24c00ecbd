"""The processor on folders that transformers wrote, and on the ways in which such folders can be wrong."""

import json
import shutil

import pytest
import support
import torch
from support import IMAGE, LOC, SEG, SIDE, edit_json, random_image

from mmcli.errors import ModelError, UsageError
from mmcli.models.paligemma import FAMILY
from mmcli.models.paligemma.processor import PaliGemmaProcessor
from mmcli.models.prompts import question_prompt

SOFT = (SIDE // 7) ** 2


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    support.write_checkpoint(folder, support.tiny_reference(support.tiny_config(False)))
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


def open_processor(folder) -> PaliGemmaProcessor:
    raw = json.loads((folder / "config.json").read_text())
    return FAMILY.processor(folder, FAMILY.read_config(raw), raw)


def test_the_layout_is_images_bos_prompt_line_break(saved):
    processor = open_processor(saved)
    tokens = processor.inputs([[random_image(1), random_image(2)]], ["caption en"]).tokens[0].tolist()
    assert tokens[: 2 * SOFT + 1] == [IMAGE] * 2 * SOFT + [2]
    assert processor.decode(tokens) == "caption en\n"


def test_rows_are_padded_on_the_left_and_images_keep_their_order(saved):
    processor = open_processor(saved)
    inputs = processor.inputs([[random_image(1)], [], [random_image(2), random_image(3)]], ["caption en", "", "cat"])
    assert inputs.valid.sum(1).tolist() == [
        processor.inputs([own], [prompt]).tokens.shape[1]
        for own, prompt in [([random_image(1)], "caption en"), ([], ""), ([random_image(2), random_image(3)], "cat")]
    ]
    assert inputs.valid[:, -1].all() and not inputs.tokens[~inputs.valid].any()
    assert torch.equal(inputs.images[1], processor.inputs([[random_image(2)]], [""]).images[0])


@pytest.mark.parametrize("ending", [" ", "\n", "\n\n", " \t\n"])
def test_white_space_at_the_end_of_a_prompt_changes_nothing(saved, ending):
    processor = open_processor(saved)
    assert torch.equal(processor.inputs([[]], ["cat" + ending]).tokens, processor.inputs([[]], ["cat"]).tokens)


def test_a_prompt_cannot_smuggle_in_image_tokens(saved):
    with pytest.raises(UsageError, match="<image>"):
        open_processor(saved).inputs([[random_image()]], ["what is <image>"])


def test_a_tokenizer_larger_than_the_table_is_said_before_the_model_fails(folder):
    config = json.loads((folder / "config.json").read_text())
    edit_json(folder / "config.json", text_config=config["text_config"] | {"vocab_size": 600})
    processor = open_processor(folder)
    processor.inputs([[]], ["cat"])
    with pytest.raises(ModelError, match=r"token \(<loc1023>\) that the model has no row for"):
        processor.inputs([[]], ["<loc1023>"])


def test_answers_keep_locations_and_lose_control_tokens(saved):
    processor = open_processor(saved)
    cat = processor.tokenizer.encode(" cat", add_special_tokens=False).ids
    ids = [2, LOC, LOC + 1023, SEG + 5, *cat, 1, 0, 0]
    assert processor.decode(ids) == "<loc0000><loc1023><seg005> cat"


def test_what_the_tasks_ask_for_is_there(saved):
    processor = open_processor(saved)
    assert (processor.grammar.loc_start, processor.grammar.seg_start) == (LOC, SEG)
    assert (processor.image_size, processor.soft_tokens, processor.stop_ids) == (SIDE, SOFT, {1})


@pytest.mark.parametrize(
    "task, words, prompt",
    [
        ("caption", "", "caption en"),
        ("detect", "cat ; dog", "detect cat ; dog"),
        ("segment", " the red ball ", "segment the red ball"),
        ("chat", "What is {this}?", "answer en What is {this}?"),
    ],
)
def test_prompts_of_the_tasks(saved, task, words, prompt):
    assert open_processor(saved).task_prompt(task, words) == prompt


def test_a_task_that_pali_gemma_was_not_trained_on_is_refused(saved):
    with pytest.raises(UsageError, match="'transcribe'"):
        open_processor(saved).task_prompt("transcribe", "")


def test_settings_are_read_from_the_older_file_too(folder):
    nested = json.loads((folder / "processor_config.json").read_text())["image_processor"]
    (folder / "processor_config.json").unlink()
    (folder / "preprocessor_config.json").write_text(json.dumps(nested | {"resample": 2, "image_mean": [0, 0.1, 0.2]}))
    settings = open_processor(folder).images
    assert (settings.resample, settings.values.mean) == (2, (0, 0.1, 0.2))


def test_stop_tokens_come_from_the_generation_settings_first(folder):
    edit_json(folder / "generation_config.json", eos_token_id=[1, 7])
    assert open_processor(folder).stop_ids == {1, 7}
    (folder / "generation_config.json").unlink()
    assert open_processor(folder).stop_ids == {1}


def test_a_tokenizer_without_locations_has_no_vocabulary_for_them(folder):
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace("<loc", "<pos"))
    assert open_processor(folder).grammar is None


def image_settings(**changes):
    def change(folder):
        path = folder / "processor_config.json"
        content = json.loads(path.read_text())
        path.write_text(json.dumps({"image_processor": content["image_processor"] | changes}))

    return change


def remove(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def only_sentencepiece(folder):
    (folder / "tokenizer.json").rename(folder / "tokenizer.model")


@pytest.mark.parametrize(
    "damage, message",
    [
        (remove("tokenizer.json"), r"no tokenizer\.json\. "),
        (only_sentencepiece, r"tokenizer\.model alone is not enough"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "tokenizer.json has no model.merges"),
        (remove("processor_config.json"), "has no preprocessor_config.json"),
        (image_settings(size={"height": 224, "width": 224}), r"takes 28 × 28"),
        (image_settings(size={"shortest_edge": 28}), "shortest_edge"),
        (image_settings(image_seq_length=256), r"256 soft tokens .* gives 16"),
        (image_settings(do_resize=False), "not supported"),
        (image_settings(do_center_crop=True), "not supported"),
    ],
)
def test_folders_that_do_not_fit_are_model_errors(folder, damage, message):
    damage(folder)
    with pytest.raises(ModelError, match=message):
        open_processor(folder)


def test_a_question_of_a_conversation_is_put_as_chat_puts_it(loaded):
    asked = {
        "What is it?": "answer en What is it?",
        " why ? ": "answer en why ?",
        "answer en how many?": "answer en how many?",
    }
    assert {question: question_prompt(loaded.processor, question) for question in asked} == asked
