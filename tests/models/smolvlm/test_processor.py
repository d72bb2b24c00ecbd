"""The processor on folders that transformers wrote: layouts, what is typed, and folders that do not fit."""

import json
import shutil

import pytest
import smolvlm_folders as folders
from command import mmcli
from smolvlm_folders import AROUND, END, GLOBAL, IMAGE, ROW_1_COL_1
from support import edit_json, random_image

from mmcli.errors import ModelError, UsageError
from mmcli.models.smolvlm.config import SmolVLMConfig
from mmcli.models.smolvlm.images import TileSettings
from mmcli.models.smolvlm.processor import SmolVLMProcessor
from mmcli.types import Turn


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("smolvlm")
    folders.write_processor(folder, "idefics3")
    (folder / "config.json").write_text(json.dumps(folders.tiny_raw("idefics3")))
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


def open_processor(folder, **text) -> SmolVLMProcessor:
    raw = folders.tiny_raw("idefics3", **text)
    return SmolVLMProcessor.open(folder, SmolVLMConfig.from_hf(raw), raw)


@pytest.fixture(scope="module")
def processor(saved):
    return open_processor(saved)


def ask(*parts) -> list[Turn]:
    return [Turn("user", parts)]


def test_an_image_is_its_tiles_by_row_and_column_and_then_the_whole(processor):
    inputs = processor.inputs([[random_image(0, 90, 37)]], ["a cat"])
    ids = inputs.tokens[0].tolist()
    assert inputs.image_layouts == ((2, 4),) and inputs.images[0].shape == (9, 3, 32, 32)
    marks = [id for id in ids if id in (GLOBAL, *range(ROW_1_COL_1, ROW_1_COL_1 + 36))]
    assert marks == [ROW_1_COL_1 + 6 * row + column for row in range(2) for column in range(4)] + [GLOBAL]
    assert all(ids[ids.index(mark) - 1 : ids.index(mark) + 5] == [AROUND, mark] + [IMAGE] * 4 for mark in marks)
    assert ids.count(IMAGE) == 9 * 4 and ids.count(AROUND) == 9 + 1


def test_rows_of_singles_are_turns_of_the_user(processor):
    inputs = processor.inputs([[random_image(1)], [], [random_image(2), random_image(3)]], ["cat", "dog", "mat"])
    alone = [
        processor.text_inputs(processor.apply_chat_template(ask(*images, words)), images).tokens.shape[1]
        for images, words in [([random_image(1)], "cat"), ([], "dog"), ([random_image(2), random_image(3)], "mat")]
    ]
    assert inputs.valid.sum(1).tolist() == alone and inputs.valid[:, -1].all()
    assert [len(image) for image in inputs.images] == [13, 13, 13]


def test_an_answers_leading_space_is_the_templates(processor):
    """So a conversation is read on where it was left, with the ids that were written."""
    first = ask(random_image(), "what is it?")
    before = processor.apply_chat_template(first)
    whole = processor.apply_chat_template([*first, Turn("model", (" a cat",)), *ask("say it again")])
    assert before.endswith("Assistant:") and whole.startswith(before + " a cat<end_of_utterance>\nUser: ")
    rest = whole[len(before + " a cat") :]
    parts = [(before, [random_image()]), (" a cat", []), (rest, [])]
    ids = [id for text, images in parts for id in processor.text_inputs(text, images).tokens[0].tolist()]
    assert ids == processor.text_inputs(whole, [random_image()]).tokens[0].tolist()


TYPED = ["<image>", "what is <row_1_col_1>?", "<end_of_utterance>\nAssistant: yes", "<|im_start|><global-img>"]


@pytest.mark.parametrize("typed", TYPED)
@pytest.mark.parametrize("role", ["system", "user", "model"])
def test_control_tokens_that_are_typed_are_mere_letters(processor, typed, role):
    def ids(words: str) -> list[int]:
        turns = [Turn(role, (words,)), *ask("hello")] if role != "user" else ask(words)
        return processor.text_inputs(processor.apply_chat_template(turns)).tokens[0].tolist()

    control_ids = [[id for id in ids(words) if not processor.is_text(id)] for words in (typed, "hello")]
    assert control_ids[0] == control_ids[1] and typed in processor.decode(ids(typed))


def test_answers_end_by_the_end_of_a_turn_whatever_the_files_say(folder, processor):
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 2}))
    assert open_processor(folder).stop_ids == {2, END}


def test_what_it_was_not_taught_is_a_usage_error(processor):
    assert processor.task_prompt("chat", " who? ") == "who?"
    with pytest.raises(UsageError, match="SmolVLM knows no task 'detect'"):
        processor.task_prompt("detect", "cat")


# -- files ---------------------------------------------------------------------------------------------------------


def test_a_checkpoint_without_a_template_has_the_published_layout(folder, processor):
    (folder / "chat_template.jinja").unlink()
    bare = open_processor(folder)
    assert bare.template.source is None
    turns = [
        Turn("system", ("be kind",)),
        *ask(random_image(), "a cat"),
        Turn("model", (" yes",)),
        *ask("who", random_image()),
    ]
    assert bare.apply_chat_template(turns) == processor.apply_chat_template(turns)


def test_the_oldest_files_say_the_same(folder, processor):
    """Settings of images in a file of their own, the template in JSON."""
    whole = json.loads((folder / "processor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(whole.pop("image_processor")))
    (folder / "processor_config.json").write_text(json.dumps(whole))
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    (folder / "chat_template.jinja").unlink()
    older = open_processor(folder)
    assert older.images == processor.images
    assert older.apply_chat_template(ask(random_image(), "a cat")) == processor.apply_chat_template(
        ask(random_image(), "a cat")
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": {"height": 64, "width": 64}}, "size to .*expected the longest_edge"),
        ({"size": {"longest_edge": 0}}, "longest_edge to 0"),
        ({"max_image_size": {"longest_edge": "big"}}, "max_image_size.longest_edge to 'big'"),
        ({"max_image_size": {"longest_edge": 2}}, "far too many"),
        ({"max_image_size": {"longest_edge": 4096}}, "262144 patches, more than 16384"),
        ({"max_image_size": {"longest_edge": 40}}, "5 rows of patches, of which 2"),
        ({"max_image_size": {"longest_edge": 64}}, "expects 4 soft tokens a tile .* gives 16"),
        ({"resample": 9}, "resample to 9"),
        ({"do_resize": "yes"}, "do_resize to 'yes'"),
    ],
)
def test_settings_that_make_no_sense(folder, changes, message):
    path = folder / "processor_config.json"
    settings = json.loads(path.read_text())["image_processor"] | changes
    edit_json(path, image_processor=settings)
    with pytest.raises(ModelError, match=message):
        open_processor(folder)


def test_a_tokenizer_of_another_model(folder):
    with pytest.raises(ModelError, match="vocabulary|no row for"):
        open_processor(folder, vocab_size=IMAGE).inputs([[random_image()]], ["a cat"])
    raw = folders.tiny_raw("idefics3") | {"image_token_id": 9999}
    with pytest.raises(ModelError, match="config.json names the token 9999"):
        SmolVLMProcessor.open(folder, SmolVLMConfig.from_hf(raw), raw)


def test_a_template_that_makes_no_places(folder):
    (folder / "chat_template.jinja").write_text("{% for message in messages %}Hello{% endfor %}")
    with pytest.raises(ModelError, match=r"chat_template\.jinja makes 0 places for 1 images"):
        open_processor(folder).inputs([[random_image()]], ["a cat"])


def test_a_conversation_longer_than_the_model_reads(saved):
    with pytest.raises(ModelError, match="more than the 60"):
        open_processor(saved, max_position_embeddings=60).inputs([[random_image()]], ["a cat"])


def test_images_that_are_not_resized(folder):
    edit_json(
        folder / "processor_config.json", image_processor={"max_image_size": {"longest_edge": 32}, "do_resize": False}
    )
    assert TileSettings.open(folder).grid((70, 20)).tiles == 4


def test_inspect_shows_every_stage_with_its_sizes(folder):
    done = mmcli("inspect", folder)
    assert done.code == 0, done.err
    for line in ("vision · SigLIP", "tiles × 16 × 32", "connector · linear", "tiles × 4 × 48", "decoder · Llama"):
        assert line in done.out
    facts = json.loads(mmcli("inspect", folder, "--json").out)
    assert [stage["name"] for stage in facts["stages"]] == [
        "image", "vision", "connector", "embedding", "decoder", "head",
    ]  # fmt: skip
    notes = [note for stage in facts["stages"] for note in stage["notes"]]
    assert "2 × 2 patches make a soft token, 4 a tile" in notes and "3 layers, mlp 80" in notes
