"""mmcli tune check: what is in data, what is wrong with them, and samples drawn from the tokens to be learned."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command import mmcli
from PIL import Image

from mmcli.boxes import overlap
from mmcli.hub.layout import BUNDLED
from mmcli.hub.resolve import resolve
from mmcli.training.check import spread
from mmcli.training.data import read_examples
from mmcli.training.targets import placed, targets, without_weights

EXAMPLES = Path(__file__).parents[2] / "examples"
OUTLINE = [60, 20, 330, 20, 400, 150, 330, 290, 60, 290, 10, 150]  # of the cat


@pytest.fixture(scope="module")
def model(tiny, tmp_path_factory) -> Path:
    """A model that writes places, with the mask codebook of the bundled one."""
    folder = tmp_path_factory.mktemp("writes") / "model"
    shutil.copytree(tiny, folder)
    shutil.copy(next(iter(BUNDLED.values())) / "mask_decoder.safetensors", folder)
    return folder


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    images = [("cat.jpg", 451, 300), ("coffee.jpg", 600, 400), ("none.jpg", 1, 1)]
    for name, _, _ in images[:2]:
        shutil.copy(EXAMPLES / name, "data")
    marks = [(1, [10, 20, 390, 270], [OUTLINE]), (2, [0, 0, 2, 2], [[0, 0, 2, 0, 2, 2]])]
    document = {
        "images": [dict(id=i, file_name=name, width=w, height=h) for i, (name, w, h) in enumerate(images)],
        "annotations": [
            {"id": i, "image_id": 0, "category_id": label, "bbox": box, "segmentation": outline}
            for i, (label, box, outline) in enumerate(marks)
        ],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "Dog"}, {"id": 3, "name": "train"}],
    }
    Path("data/annotations.json").write_text(json.dumps(document))
    return tmp_path


def test_counts_faults_and_a_sheet(model):
    done = mmcli("tune", "check", "data", "--model", str(model))
    assert done.code == 1, done.err  # a row is bad
    lines = done.out.splitlines()
    counted = dict(line.split("\t") for line in lines[: lines.index("")])
    assert counted["pictures"] == counted["objects"] == counted["objects with a mask"] == "2"
    assert counted["bad rows"] == counted["pictures that show none"] == "1" and "tokens learned" in counted
    assert "  dog\t1\t1" in lines and "  Dog\t1\t1" in lines
    wrong = lines[lines.index("looks wrong:") + 1 :]
    assert wrong[0] == "  Labels are learned in another spelling than they are marked: <unk>og"  # by a tiny tokenizer
    assert "  Labels that differ in spelling alone are taught as different ones: dog, Dog" in wrong
    assert "  Fewer than 10 objects teach little: dog, Dog" in wrong
    assert any("1 object is smaller than 8 steps" in line for line in wrong)
    assert any("taught as absent: train" in line for line in wrong)
    assert "  annotations.json, image 2: its picture 'none.jpg' does not exist" in lines
    assert done.err == "mmcli: more rows are bad than mmcli tune allows (10%): mend them, or raise --max-bad\n" + (
        "mmcli: samples are drawn in check.png\n"
    )
    with Image.open("check.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    assert pixels.shape[1] == 1322 and (pixels.std((0, 1)) > 20).all()  # two pictures beside each other


def test_what_is_drawn_comes_from_the_tokens(model):
    example = next(iter(read_examples(Path("data"))))
    loaded = without_weights(resolve(str(model)), frozenset({"dog", "Dog"}))
    own = targets(loaded, example)
    objects = [one for target in own for one in placed(loaded, target, 451, 300)]
    cat = max(objects, key=lambda one: one.box[2])
    assert overlap(cat.box, (10, 20, 400, 290)) > 0.99 and cat.box != (10, 20, 400, 290)
    assert cat.mask is not None and 0.75 < cat.mask.pixels.sum() / (390 * 270) < 0.95
    assert "<loc" in own[0].answer and "<seg" in own[0].answer and own[0].prompt.startswith("segment")


def test_what_the_model_cannot_learn_is_said(model):
    shutil.copy(EXAMPLES / "jfk.flac", "a.flac")
    rows = {"file_name": "data/cat.jpg", "text": "A dog."}, {"file_name": "a.flac", "text": "hi"}
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = mmcli("tune", "check", "rows.jsonl", "--model", str(model), "--samples", "0")
    assert "examples to caption\t1" in done.out and "examples to transcribe\t1" in done.out
    assert f"of no use to {model}:\n  rows.jsonl:2: " in done.out and "of no use to the model\t1" in done.out
    assert done.code == 1 and not Path("check.png").exists()


def test_what_a_model_that_knows_no_turns_does_not_learn_of_conversations_is_said(model):
    asked = [{"role": role, "content": "what?"} for role in ("system", "user", "assistant", "user", "assistant")]
    rows = [{"image": "data/cat.jpg", "messages": messages} for messages in (asked, asked[:3], asked[1:3])]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = mmcli("tune", "check", "rows.jsonl", "--model", str(model), "--samples", "0")
    assert (
        "  The model answers every question by itself, so it is not taught the system message of 2 conversations and "
        "the order of questions in 1 conversation\n"
    ) in done.out


def test_samples_show_as_many_labels_as_they_can():
    examples = list(read_examples(Path("data")))
    chosen = spread([one for one in examples if hasattr(one, "objects")], 1)
    assert len(chosen) == 1 and chosen[0].objects


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (["nowhere"], 1, "nowhere does not exist"),
        (["data", "-o", "sheet.jpg"], 2, "--output sheet.jpg is no picture"),
        (["data", "--samples", "101"], 2, "is not between 0 and 100"),
        (["data", "--max-bad", "x"], 2, "neither a number nor a share"),
        ([], 2, "Missing argument 'DATA'"),
    ],
)
def test_what_is_wrong_with_the_command_line(arguments, code, what):
    done = mmcli("tune", "check", *arguments)
    assert (done.code, done.out) == (code, "") and what in done.err


def test_data_called_check_are_data(model):
    done = mmcli("tune", "./check", "--model", str(model), "-o", "out")
    assert done.code == 1 and "check does not exist" in done.err


def test_a_model_must_be_named_to_be_tuned(tmp_path):
    done = mmcli("tune", tmp_path, "-o", tmp_path / "out")
    assert done.code == 2 and "Missing option '--model'" in done.err
    assert not (tmp_path / "out").exists()
