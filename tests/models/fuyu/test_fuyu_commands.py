"""What Fuyu's places become in the commands: a small model that always writes one box and one point."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from command import mmcli
from fuyu_folders import BEGIN, TEXT, id_of, tiny_config, tiny_reference, write_checkpoint
from PIL import Image
from support import edit_json, random_image

import mmcli as package
from mmcli.errors import ModelError, UsageError
from mmcli.hub.resolve import resolve
from mmcli.models.fuyu import FAMILY
from mmcli.models.load import load

LOCATE = (
    "When presented with a box, perform OCR to extract text contained within it. "
    "If provided with text, generate the corresponding bounding box.\n"
)
# What it writes behind the beginning of an answer, always; the photo of 3840 × 216 pixels is seen at half its size.
SAID = ["<0x00>", "10", "20", "49", "400", "<0x01>", "▁cat", "<0x02>", "60", "30", "<0x03>", "|ENDOFTEXT|"]
BOX, POINT = [80.0, 40.0, 1600.0, 196.0], [240.0, 120.0, 240.0, 120.0]
TEXT_SAID = "<box>10, 20, 49, 400</box> cat<point>60, 30</point>"


@pytest.fixture(scope="module")
def parrot(tmp_path_factory) -> Path:
    """Its layers add nothing, its embeddings are at right angles, and its head knows what comes next."""
    folder = tmp_path_factory.mktemp("parrot")
    model = tiny_reference(tiny_config())
    for name, parameter in model.named_parameters():
        if "dense" in name or "lm_head" in name or "embed_tokens" in name:
            parameter.zero_()
        elif "final_layernorm" in name:
            parameter.fill_(float(name.endswith("weight")))
    chain = [id_of(piece) for piece in ("<0x04>", *SAID)]
    for place, (one, following) in enumerate(zip(chain, chain[1:], strict=False)):
        model.model.language_model.embed_tokens.weight[one, place] = 10.0
        model.lm_head.weight[following, place] = 10.0
    write_checkpoint(folder, model)
    return folder


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "large.png"
    Image.new("RGB", (3840, 216), (90, 120, 30)).save(path)
    return path


@pytest.fixture(scope="module")
def processor(parrot):
    return load(resolve(str(parrot)), "cpu", "float32").processor


def test_detect_asks_for_each_thing_alone_and_names_what_it_places(parrot, photo, tmp_path):
    drawn = tmp_path / "drawn.png"
    [record] = mmcli("detect", "a dog ; sky", photo, "--model", parrot, "--json", "--overlay", drawn).records
    assert [(one["label"], one["box"], one["raw_box"]) for one in record["objects"]] == [
        ("a dog", BOX, [10, 20, 49, 400]), ("a dog", POINT, [60, 30]),
        ("sky", BOX, [10, 20, 49, 400]), ("sky", POINT, [60, 30]),
    ]  # fmt: skip
    assert record["prompt"] == f"{LOCATE}a dog\n{LOCATE}sky"
    assert record["text"] == f"{TEXT_SAID}\n{TEXT_SAID}"
    assert record["problems"] == [] and not record["truncated"]
    assert record["timings"]["tokens"] == 2 * (len(SAID) - 1)
    assert all(-1 < one["score"] <= 0 for one in record["objects"])
    before, after = Image.open(photo), Image.open(drawn)
    assert after.size == before.size
    assert after.getpixel((240, 120)) != before.getpixel((240, 120))  # a point is a dot


def test_a_folder_in_batches_gives_what_single_images_give(parrot, photo, tmp_path):
    for place, size in enumerate([(100, 700), (400, 90), (3840, 216)]):
        Image.new("RGB", size).save(tmp_path / f"{place}.png")

    def boxes(*options):
        done = mmcli("detect", "cat", tmp_path, "--model", parrot, "--json", *options)
        assert done.code == 0, done.err
        return [[one["box"] for one in record["objects"]] for record in done.records]

    assert boxes("--batch-size", 1) == boxes("--batch-size", 3)
    assert boxes()[0] == [[40.0, 20.0, 100.0, 98.0], [100.0, 60.0] * 2] and boxes()[2] == [BOX, POINT]


def test_where_is_answers_are_objects_too(parrot, photo):
    [record] = mmcli("chat", photo, "-m", "where is the cat?", "--model", parrot, "--json").records
    assert record["text"] == TEXT_SAID and record["prompt"] == "where is the cat?\n"
    assert [(one["label"], one["box"]) for one in record["objects"]] == [("", BOX), ("cat", POINT)]


def test_what_lies_in_the_padding_is_no_object(parrot, tmp_path):
    random_image(1, 30, 30).save(tmp_path / "small.png")  # the box begins at 40 pixels
    [record] = mmcli("detect", "cat", tmp_path / "small.png", "--model", parrot, "--json").records
    assert [one["box"] for one in record["objects"]] == [[30.0, 30.0] * 2]
    assert record["problems"] == ['"cat" lies outside the image']


def test_an_answer_without_a_place_is_said(parrot, photo):
    [record] = mmcli("detect", "cat", photo, "--model", parrot, "--json", "--max-tokens", 3).records
    assert record["objects"] == [] and record["truncated"]
    assert '"cat" was answered without a place' in record["problems"]


def test_answers_end_with_the_published_models_mark_whatever_its_settings_say(parrot, photo, tmp_path):
    shutil.copytree(parrot, tmp_path / "model")
    edit_json(tmp_path / "model" / "generation_config.json", eos_token_id=2)
    [record] = mmcli("chat", photo, "-m", "where?", "--model", tmp_path / "model", "--json").records
    assert record["text"] == TEXT_SAID and not record["truncated"]


def test_what_it_cannot_do_is_one_sentence(parrot, photo):
    for command, words in (
        (("segment", "cat", photo), "outlines nothing"),
        (("detect", "cat", photo, "--min-score", 0.5), "gives no probabilities"),
        (("detect", "cat", photo, "--loc-divisor", 1024), "its own way"),
        (("chat", photo, photo, "-m", "what?"), "about one picture at a time"),
        (("chat", photo, "-m", "a |SPEAKER| here"), "cannot hold the image's own token |SPEAKER|"),
        (("chat", photo, "-m", "<box>1, 2, 3</box> what?"), "no place (a box has 4 numbers, not 3)"),
        (("chat", photo, "-m", "<point>a, b</point>"), "Write <box>y0, x0, y1, x1</box>"),
    ):
        done = mmcli(*command, "--model", parrot)
        assert done.code in (2, 3) and words in done.err, done.err


def test_inspect_shows_stages_shapes_and_marks(parrot):
    facts = json.loads(mmcli("inspect", parrot, "--json").out)
    assert facts["capabilities"]["tasks"] == ["caption", "detect", "chat"] and facts["capabilities"]["max_images"] == 1
    assert [stage["name"] for stage in facts["stages"]] == ["image", "patches", "embedding", "decoder", "head"]
    outputs = [f"1 to 2304 × {n}" for n in (2700, TEXT["hidden_size"])]
    assert [stage["output"] for stage in facts["stages"]][:2] == outputs
    assert facts["parameters"] == sum(stage["parameters"] for stage in facts["stages"])
    assert facts["vocabulary"]["<box>"] == [id_of("<0x00>")] * 2 and "image_size" not in facts
    assert "relu²" in mmcli("inspect", parrot).out


def test_the_python_api(parrot, photo):
    model = package.load(parrot)
    assert [one.box for one in model.detect("cat", photo).objects] == [tuple(BOX), tuple(POINT)]
    assert model.chat("where is it?", photo).text == TEXT_SAID


# -- the processor -----------------------------------------------------------------------------------------------------


def test_places_in_a_prompt_are_told_in_the_models_units(processor):
    image = Image.new("RGB", (3840, 2160))
    [row] = processor.inputs([[image]], ["OCR <box>40, 80, 1200, 160</box> <point>200, 2160</point>"]).tokens.tolist()
    written = row[row.index(BEGIN) + 1 :]
    box = [id_of(piece) for piece in ("<0x00>", "10", "20", "300", "40", "<0x01>")]
    point = [id_of(piece) for piece in ("<0x02>", "50", "540", "<0x03>")]
    words, between = (processor.tokenizer.encode(text).ids for text in ("OCR ", " "))
    assert written == [*words, *box, *between, *point, id_of("<0x04>")]
    alone = processor.inputs([[]], ["<box>40, 80, 1200, 160</box>"]).tokens.tolist()[0]
    assert id_of("<0x00>") not in alone  # there is no image in which it could be


def test_a_place_that_has_no_token_is_a_sentence(parrot):
    image = Image.new("RGB", (3840, 2160))
    processor = load(resolve(str(parrot)), "cpu", "float32").processor
    object.__setattr__(processor.places, "numbers", {})
    with pytest.raises(UsageError, match="no token for 10"):
        processor.inputs([[image]], ["<point>40, 80</point>"])


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (["▁cat", "▁on", "▁left"], "cat on left"),
        (["<s>", "▁cat", "|ENDOFTEXT|", "|SPEAKER|", "|NEWLINE|", "<0x04>", "</s>", "<unk>"], "cat"),
        (["<0xC3>", "<0xA9>", "▁cat"], "é cat"),
        (["<0x00>", "1", "<0x01>", "▁cat", "<0x02>", "7", "8"], "<box>1</box> cat<point>7, 8"),
        (["<0x00>", "1", "▁cat", "1"], "<box>1 cat1"),
        (["1", "2", "<0x01>", "▁cat"], "12</box> cat"),
        (["▁cat", "<0x00>", "<0x01>", "c", "a"], "cat<box></box>ca"),
    ],
)
def test_text_of_tokens(processor, pieces, text):
    ids = [id_of(piece) for piece in pieces]
    assert processor.decode(ids) == text
    so_far = [processor.decode(ids[:count]) for count in range(len(ids) + 1)]
    assert all(text.startswith(part.rstrip("\N{REPLACEMENT CHARACTER}")) for part in so_far)  # what streams stays


def test_a_tokenizer_without_the_marks_of_places_leaves_a_model_that_places_nothing(parrot, tmp_path):
    for path in parrot.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    for piece in content["model"]["vocab"]:
        piece[0] = "[mark]" if piece[0] == "<0x02>" else piece[0]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    processor = load(resolve(str(tmp_path)), "cpu", "float32").processor
    assert processor.grammar is None and not processor.capabilities.objects
    for piece in content["model"]["vocab"]:
        piece[0] = "[end]" if piece[0] == "|NEWLINE|" else piece[0]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    done = mmcli("inspect", tmp_path)
    assert done.code == 0 and "has no token |NEWLINE|" in done.out


def test_a_tokenizer_of_a_larger_model_is_refused(parrot, tmp_path):
    for path in parrot.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config"]["vocab_size"] = 300
    (tmp_path / "config.json").write_text(json.dumps(config))
    own = FAMILY.read_config(config)
    with pytest.raises(ModelError, match="no row for"):
        FAMILY.processor(tmp_path, own, config).inputs([[Image.new("RGB", (9, 9))]], ["What is cat"])


@torch.inference_mode()
def test_what_an_image_shows_changes_the_answer(tmp_path):
    write_checkpoint(tmp_path, tiny_reference(tiny_config(), 3))
    loaded = load(resolve(str(tmp_path)), "cpu", "float32")
    logits = []
    for colour in ("red", "blue"):
        inputs = loaded.processor.inputs([[Image.new("RGB", (40, 40), colour)]], ["cat"])
        logits.append(loaded.model.prefill(inputs, loaded.model.new_cache(1, inputs.tokens.shape[1])))
    assert (logits[0] - logits[1]).abs().max() > 0.1
