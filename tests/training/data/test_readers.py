"""Each reader on a small example of its format, as other tools write it."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from mmcli.errors import InputError, UsageError
from mmcli.example import Exchange, Polygons
from mmcli.training.data import Allowance, BadRow, gather, read_examples
from mmcli.training.data.media import opened
from mmcli.training.data.rows import JsonFile

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with two pictures, 40 × 20, in it and below it."""
    for place in ("a.jpg", "images/b.png", "JPEGImages/c.jpg"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 20), "red").save(tmp_path / place)
    return tmp_path


def jsonl(path: Path, *rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def test_a_prefix_and_a_suffix(folder):
    box = "<loc0000><loc0100><loc0500><loc0600> cat"
    path = jsonl(
        folder / "rows.jsonl",
        {"image": "a.jpg", "prefix": "detect cat", "suffix": box},
        {"image": "images/b.png", "prefix": "answer en what is it?", "suffix": "red"},
    )
    first, second = read_examples(path)
    assert first.task == "detect" and first.exchanges == (Exchange("detect cat", box),) and first.objects == ()
    assert second.task == "chat" and second.images == (folder / "images/b.png",) and second.where == "rows.jsonl:2"


COCO = {
    "info": {"description": "objects in [brackets] and {braces}"},
    "images": [
        {"id": 7, "file_name": "b.png", "width": 40, "height": 20},
        {"id": 8, "file_name": "a.jpg", "width": 40, "height": 20},
    ],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 3, "bbox": [4, 2, 20, 10], "iscrowd": 0,
         "segmentation": [[4, 2, 24, 2, 24, 12, 4, 12]]},
        {"id": 2, "image_id": 7, "category_id": 5, "bbox": [0, 0, 40, 20], "iscrowd": 1,
         "segmentation": {"size": [20, 40], "counts": [0, 800]}},
        {"id": 3, "image_id": 8, "category_id": 5, "bbox": [0, 0, 40, 20],
         "segmentation": {"size": [20, 40], "counts": [400, 400]}},
    ],
    "categories": [{"id": 3, "name": "cat"}, {"id": 5, "name": "dog"}],
}  # fmt: skip


@pytest.mark.parametrize("place", ["annotations.json", "annotations/instances_train2017.json"])
@pytest.mark.parametrize("by_folder", [False, True])
def test_coco(folder, place, by_folder):
    (folder / place).parent.mkdir(exist_ok=True)
    (folder / place).write_text(json.dumps(COCO))
    first, second = read_examples(folder if by_folder else folder / place)
    [cat] = first.objects
    assert (cat.label, cat.box) == ("cat", (0.1, 0.1, 0.6, 0.6)) and first.task == "segment"
    assert cat.mask == Polygons(((0.1, 0.1, 0.6, 0.1, 0.6, 0.6, 0.1, 0.6),))
    assert first.exhaustive == {"cat"}  # there is a crowd of dogs
    assert second.exhaustive == {"cat", "dog"} and second.objects[0].mask.counts == (400, 400)
    assert first.size == (40, 20) and first.images == (folder / "images/b.png",)


def test_captions_of_coco_are_an_example_each(folder):
    rows = [{"id": n, "image_id": 8, "caption": f"Red {n}."} for n in range(3)]
    (folder / "captions_val2014.json").write_text(
        json.dumps(COCO | {"annotations": rows, "images": COCO["images"][1:]})
    )
    found = list(read_examples(folder))
    assert [one.exchanges[0].answer for one in found] == ["Red 0.", "Red 1.", "Red 2."]
    assert {one.task for one in found} == {"caption"}


def test_splits_of_coco(folder):
    for split in ("train", "valid"):
        (folder / split).mkdir()
        shutil.copy(folder / "a.jpg", folder / split)
        own = COCO | {"images": COCO["images"][1:], "annotations": COCO["annotations"][2:]}
        (folder / split / "_annotations.coco.json").write_text(json.dumps(own))
    [train] = read_examples(folder)
    assert train.images == (folder / "train/a.jpg",)
    [val] = read_examples(folder, split="val")
    assert val.images == (folder / "valid/a.jpg",)
    with pytest.raises(UsageError, match="has no split test. It has train, val"):
        read_examples(folder, split="test").__next__()


def test_only_one_item_of_a_large_file_is_parsed(folder):
    (folder / "x.json").write_text(json.dumps(COCO))
    with JsonFile(folder / "x.json", "x.json") as file:
        found = [(key, json.loads(file.bytes(start, end))) for key, start, end in file.items()]
    assert [one for key, one in found if key == "annotations"] == COCO["annotations"]
    assert [one for key, one in found if key == "categories"] == COCO["categories"] and len(found) == 7


def yolo(folder: Path, labels: str, settings: str = "train: images\nval: images\nnames: [cat, dog]\n") -> Path:
    (folder / "data.yaml").write_text(settings)
    (folder / "labels").mkdir(exist_ok=True)
    (folder / "labels/b.txt").write_text(labels)
    return folder


def test_yolo(folder):
    Image.new("RGB", (8, 8)).save(folder / "images/empty.png")
    [boxes, none] = read_examples(yolo(folder, "1 0.5 0.5 0.5 0.25\n0 0.1 0.1 0.2 0.2\n"))
    assert [one.label for one in boxes.objects] == ["dog", "cat"] and boxes.task == "detect"
    assert boxes.objects[0].box == (0.25, 0.375, 0.75, 0.625) and boxes.exhaustive == {"cat", "dog"}
    assert none.objects == () and none.exhaustive == {"cat", "dog"}


def test_a_list_of_yolo_as_windows_writes_it(folder):
    """A byte order mark, \\ and carriage returns; the labels are found by the picture that was found."""
    (folder / "train.txt").write_bytes("\ufeff.\\images\\b.png\r\n\r\n".encode())
    [found] = read_examples(yolo(folder, "\ufeff0 0.5 0.5 0.5 0.5\r\n", "\ufefftrain: train.txt\r\nnames: [cat]\r\n"))
    assert [one.label for one in found.objects] == ["cat"]


def test_outlines_of_yolo(folder):
    found = next(iter(read_examples(yolo(folder, "0 0.1 0.2 0.9 0.2 0.5 0.8\n"))))
    assert found.task == "segment" and found.objects[0].box == (0.1, 0.2, 0.9, 0.8)
    settings = "train: images\nkpt_shape: [1, 2]\nnames:\n  0: cat\n"
    found = next(iter(read_examples(yolo(folder, "0 0.5 0.5 0.5 0.25 0.3 0.3\n", settings))))
    assert found.task == "detect" and found.objects[0].box == (0.25, 0.375, 0.75, 0.625)


VOC = """<annotation><folder>x</folder><filename>c.jpg</filename>
<size><width>40</width><height>20</height><depth>3</depth></size>
<object><name>cat</name><bndbox><xmin>5</xmin><ymin>1</ymin><xmax>40</xmax><ymax>20</ymax></bndbox>
<part><name>head</name><bndbox><xmin>5</xmin><ymin>1</ymin><xmax>6</xmax><ymax>2</ymax></bndbox></part></object>
</annotation>"""


def test_voc(folder):
    (folder / "Annotations").mkdir()
    (folder / "Annotations/c.xml").write_text(VOC)
    [found] = read_examples(folder)
    [cat] = found.objects
    assert cat.box == (0.1, 0.0, 1.0, 1.0) and found.images == (folder / "JPEGImages/c.jpg",)
    assert found.exhaustive == {"cat"} and found.size == (40, 20)


@pytest.mark.parametrize("size", ["", "<size/>", "<size><width>0</width><height>0</height></size>"])
def test_an_annotation_that_tells_no_size_has_that_of_its_picture(size, folder):
    (folder / "Annotations").mkdir()
    (folder / "Annotations/c.xml").write_text(re.sub("<size>.*</size>", size, VOC))
    [found] = read_examples(folder)
    assert found.objects[0].box == (0.1, 0.0, 1.0, 1.0) and found.size == (40, 20)


def test_splits_of_voc(folder):
    (folder / "Annotations").mkdir()
    (folder / "ImageSets/Main").mkdir(parents=True)
    for name in ("c", "d"):
        shutil.copy(folder / "JPEGImages/c.jpg", folder / f"JPEGImages/{name}{name}.jpg")
        (folder / f"Annotations/{name}.xml").write_text(VOC.replace("c.jpg", f"{name}{name}.jpg"))
    (folder / "ImageSets/Main/train.txt").write_text("c\n")
    (folder / "ImageSets/Main/val.txt").write_text("\ufeffd 1\r\ne f\r\n")
    (folder / "Annotations/e f.xml").write_text(VOC)
    assert [one.where for one in read_examples(folder)] == ["Annotations/c.xml"]
    assert [one.where for one in read_examples(folder, split="val")] == ["Annotations/d.xml", "Annotations/e f.xml"]


def test_a_text_beside_each_picture(folder):
    (folder / "a.txt").write_text("A red\npicture.\n")
    (folder / "images/b.txt").write_text("Red.")
    found = list(read_examples(folder))
    good = [one for one in found if not isinstance(one, BadRow)]
    assert [(one.where, one.exchanges[0].answer) for one in good] == [
        ("a.jpg", "A red picture."),
        ("images/b.png", "Red."),
    ]
    assert [str(one) for one in found if isinstance(one, BadRow)] == ["JPEGImages/c.jpg: there is no c.txt beside it"]


def test_image_folders(folder):
    jsonl(
        folder / "metadata.jsonl",
        {"file_name": "a.jpg", "text": "Red."},
        {"file_name": "images/b.png", "caption": ["x", "y"]},
    )
    found = list(read_examples(folder))
    assert [(one.task, one.exchanges) for one in found] == [
        ("caption", (Exchange(None, t),)) for t in ("Red.", "x", "y")
    ]
    (folder / "metadata.jsonl").unlink()
    for split in ("train", "test"):
        (folder / split).mkdir()
        shutil.copy(folder / "a.jpg", folder / split)
        with open(folder / split / "metadata.csv", "w", newline="") as file:
            csv.writer(file).writerows([["file_name", "text"], ["a.jpg", f'In "{split}", with\na line']])
    assert [one.exchanges[0].answer for one in read_examples(folder)] == ['In "train", with\na line']
    assert len(list(read_examples(folder, prefer=("test",)))) == 1


def test_conversations_of_chat_templates(folder):
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "image", "image": "a.jpg"}, {"type": "text", "text": "Which colour?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "Red."}]},
        {"role": "user", "content": "Really?"},
        {"role": "assistant", "content": "Yes."},
    ]
    [found] = read_examples(jsonl(folder / "chat.jsonl", {"messages": turns}))
    assert found.system == "Be brief." and found.images == (folder / "a.jpg",) and found.task == "chat"
    assert found.exchanges == (Exchange("Which colour?", "Red."), Exchange("Really?", "Yes."))


def test_conversations_of_llava(folder):
    row = {
        "id": "1",
        "image": "b.png",
        "conversations": [
            {"from": "human", "value": "<image>\nWhich colour?"},
            {"from": "gpt", "value": "Red."},
        ],
    }
    (folder / "llava.json").write_text(json.dumps([row, row | {"image": "none.jpg"}], indent=1))
    good, bad = read_examples(folder / "llava.json")
    assert good.images == (folder / "images/b.png",) and good.exchanges == (Exchange("Which colour?", "Red."),)
    assert str(bad) == "llava.json, item 2: its picture 'none.jpg' does not exist"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("speech.jsonl", '{"audio": "jfk.flac", "text": "hello"}\n'),
        ("nemo.json", '{"audio_filepath": "jfk.flac", "text": "hello", "duration": 3.1, "offset": 0.0}\n'),
        ("speech.csv", "\ufefffile,text\r\njfk.flac,hello\r\n"),
        ("validated.tsv", 'client_id\tpath\tsentence\n1\tjfk.flac\t"hello\n'),
    ],
)
def test_speech(tmp_path, name, text):
    shutil.copy(EXAMPLES / "jfk.flac", tmp_path)
    path = tmp_path / (name if name != "nemo.json" else "nemo.jsonl")
    path.write_text(text, "utf-8", newline="")
    [found] = opened(read_examples(path))
    assert found.task == "transcribe" and found.audio == (tmp_path / "jfk.flac",)
    assert found.exchanges[0].answer.lstrip('"') == "hello"


def test_pictures_are_opened(folder):
    data = (EXAMPLES / "cat.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(data[: len(data) // 2])
    (folder / "text.jpg").write_text("no picture")
    rows = [{"file_name": name, "text": "x"} for name in ("a.jpg", "cut.jpg", "text.jpg", "a.jpg")]
    found = list(opened(read_examples(jsonl(folder / "metadata.jsonl", *rows))))
    assert [isinstance(one, BadRow) for one in found] == [False, True, True, False]
    assert "cut short" in found[1].what and "text.jpg is" in found[2].what


def test_boxes_are_for_pictures_of_their_size(folder):
    images = [COCO["images"][0] | {"width": 20, "height": 40}]
    (folder / "x.json").write_text(json.dumps(COCO | {"images": images, "annotations": []}))
    [bad] = opened(read_examples(folder / "x.json"))
    assert bad.what == "its boxes are for 20 × 40 pixels, and b.png has 40 × 20 pixels as it is displayed"


def test_so_many_rows_may_be_bad(folder):
    rows = [{"file_name": "a.jpg", "text": "x"}] * 9 + [{"file_name": "no.jpg", "text": "x"}]
    path = jsonl(folder / "metadata.jsonl", *rows)
    data = gather(read_examples(path), Allowance.of("10%"), "metadata.jsonl")
    assert (len(data.examples), len(data.bad)) == (9, 1) and data.bad[0].where == "metadata.jsonl:10"
    for allowed in ("0", "9%"):
        with pytest.raises(
            InputError, match="1 of 10 rows of metadata.jsonl are bad.*metadata.jsonl:10: its file_name 'no"
        ):
            gather(read_examples(path), Allowance.of(allowed), "metadata.jsonl")
    for wrong in ("x", "-1", "110%", "nan%", ""):
        with pytest.raises(UsageError, match="neither a number nor a share"):
            Allowance.of(wrong)
