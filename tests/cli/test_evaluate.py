"""mmcli evaluate: measures on stdout, records where they are wanted, and what is wrong with the data in sentences."""

import json
import shutil
from pathlib import Path

import pytest
from command import mmcli
from records import read

EXAMPLES = Path(__file__).parents[2] / "examples"
CAT = {"file_name": "cat.jpg", "objects": [{"label": "cat", "box": [0, 0, 411, 300]}]}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """A data set of two photographs, of which one shows a cat; a third is missing."""
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    for name in ("cat.jpg", "coffee.jpg"):
        shutil.copy(EXAMPLES / name, "data")
    images = [("cat.jpg", 451, 300), ("coffee.jpg", 600, 400)]
    document = {
        "images": [dict(id=i, file_name=name, width=w, height=h) for i, (name, w, h) in enumerate(images)],
        "annotations": [{"id": 1, "image_id": 0, "category_id": 1, "bbox": [0, 0, 411, 300]}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    Path("data/annotations.json").write_text(json.dumps(document))
    Path("itself").symlink_to("itself")
    return tmp_path


def test_measures_are_lines_of_name_and_value():
    done = mmcli("evaluate", "data", "-o", "answers.jsonl")
    assert done.code == 0, done.err
    values = dict(line.split("\t") for line in done.out.splitlines())
    assert list(values) == ["AP50", "AP"] and values["AP50"] == "1.0000" and 0.8 < float(values["AP"]) <= 1
    assert done.err == "mmcli: answers: 2 detect\n"
    records = list(read(Path("answers.jsonl").read_text()))
    assert [Path(one["source"]).name for one in records] == ["cat.jpg", "coffee.jpg"]
    assert records[0]["prompt"] == "detect cat" and records[0]["objects"][0]["label"] == "cat"


def test_records_are_printed_and_measures_said():
    done = mmcli("evaluate", "data/annotations.json", "--json")
    assert done.code == 0 and len(list(read(done.out))) == 2
    assert done.err.splitlines()[0] == "mmcli: AP50 1.0000"


def test_bad_rows_are_named_and_too_many_are_refused():
    document = json.loads(Path("data/annotations.json").read_text())
    document["images"].append({"id": 9, "file_name": "none.jpg", "width": 1, "height": 1})
    Path("data/annotations.json").write_text(json.dumps(document))
    row = "annotations.json, image 9: its picture (its path) 'none.jpg' does not exist"
    done = mmcli("evaluate", "data")
    assert done.code == 1 and done.out == ""
    assert "1 of 3 rows of data are bad, and 10% may be: annotations.json, image 9" in done.err
    done = mmcli("evaluate", "data", "--max-bad", "1")
    assert done.code == 0 and done.err.startswith("mmcli: left out: annotations.json, image 9"), row


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (["nowhere"], 1, "nowhere does not exist"),
        (["itself"], 1, "itself is a link that leads back to itself"),
        (["data", "--format", "x"], 2, "There is no format x. Choose from records"),
        (["data", "--split", "test"], 2, "data has no split test"),
        (["data", "--max-bad", "many"], 2, "--max-bad many is neither a number nor a share"),
        (["data", "--media", "nowhere"], 1, "nowhere is no folder"),
        (["data", "-o", "data/annotations.json"], 2, "would write over data/annotations.json"),
        (["data", "-o", "data/cat.jpg"], 2, "would write over data/cat.jpg"),
        (["data", "--model", "no/such"], 3, "no/such"),
        ([], 2, "Missing argument 'DATA'"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_what_is_wrong_is_said(arguments, code, what, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = mmcli("evaluate", *arguments)
    assert (done.code, done.out) == (code, ""), done.err
    assert what in done.err
