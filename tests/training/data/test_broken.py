"""Broken and hostile data: one sentence each, and what is good is read all the same."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from mmcli.errors import InputError, MmcliError, UsageError
from mmcli.training.data import BadRow, read_examples
from mmcli.training.data.rows import DEEPEST

NAN = float("nan")


@pytest.fixture
def folder(tmp_path) -> Path:
    data = tmp_path / "data"
    data.mkdir()
    Image.new("RGB", (40, 20)).save(data / "a.png")
    Image.new("RGB", (40, 20)).save(tmp_path / "secret.png")
    (data / "broken.png").write_bytes(b"\x89PNG")
    (data / "link.png").symlink_to("../secret.png")
    (data / "loop.png").symlink_to("loop.png")
    os.mkfifo(data / "pipe.png")
    return data


# A good row of each format, and what is done to it: the fields that are changed, and what is said.
ROWS = {
    "prefix-suffix": {"image": "a.png", "prefix": "answer en x", "suffix": "y"},
    "imagefolder": {"file_name": "a.png", "text": "x"},
    "speech": {"audio": "a.png", "text": "x"},
    "conversations": {
        "images": ["a.png"],
        "messages": [{"role": "user", "content": "<image>x"}, {"role": "assistant", "content": "y"}],
    },
    "records": {
        "schema": 2, "task": "detect", "source": "a.png", "width": 40, "height": 20, "prompt": "detect cat",
        "objects": [{"label": "cat", "box": [1, 2, 30, 15]}],
    },
}  # fmt: skip


def turns(*roles: str, content="x") -> dict:
    return {"messages": [{"role": role, "content": content} for role in roles], "images": []}


def found(**fields) -> dict:
    return {"objects": [{"label": "cat", "box": [1, 2, 30, 15]} | fields]}


BROKEN = [
    ("prefix-suffix", {"image": None}, "it has no picture (its path)"),
    ("prefix-suffix", {"image": 3}, "its picture (its path) is 3 and not a text"),
    ("prefix-suffix", {"image": "b.png"}, "its picture 'b.png' does not exist"),
    ("prefix-suffix", {"image": "../secret.png"}, "its picture '../secret.png' lies outside the data's folder"),
    ("prefix-suffix", {"image": "link.png"}, "its picture 'link.png' lies outside the data's folder"),
    ("prefix-suffix", {"image": "/etc/passwd"}, "its picture '/etc/passwd' lies outside the data's folder"),
    ("prefix-suffix", {"image": "loop.png"}, "its picture 'loop.png' does not exist"),
    ("prefix-suffix", {"image": "pipe.png"}, "its picture 'pipe.png' does not exist"),
    ("prefix-suffix", {"image": "a\0.png"}, "and only files are read"),
    ("prefix-suffix", {"image": "https://x/a.png"}, "and only files are read"),
    ("prefix-suffix", {"image": "x" * 5000}, "and only files are read"),
    ("prefix-suffix", {"image": "\ud800.png"}, "is not in UTF-8"),
    ("prefix-suffix", {"prefix": ["x"]}, "its prefix is ['x'] and not a text"),
    ("prefix-suffix", {"suffix": ""}, "its suffix is empty"),
    ("prefix-suffix", {"suffix": 1}, "its suffix is 1 and not a text"),
    ("prefix-suffix", {"suffix": "x" * 200_001}, "its suffix has more than 200,000 characters"),
    ("prefix-suffix", {"suffix": NAN}, "it holds NaN, which is no number"),
    ("imagefolder", {"text": None}, "it has no text or caption"),
    ("imagefolder", {"text": " "}, "its text or caption is empty"),
    ("imagefolder", {"text": []}, "its text or caption is [] and not a text"),
    ("speech", {"text": 5}, "its text is 5 and not a text"),
    ("speech", {"offset": 2.5}, "its offset is 2.5, and only whole recordings are read: cut it out first"),
    ("conversations", turns(), "not of user and assistant by turns"),
    ("conversations", turns("user"), "not of user and assistant by turns"),
    ("conversations", turns("user", "user", "assistant"), "not of user and assistant by turns"),
    ("conversations", turns("user", "system", "assistant"), "not of user and assistant by turns"),
    ("conversations", turns("user", "tool"), "the role 'tool' is none of system, user"),
    ("conversations", turns("user", "assistant", content={}), "a part of a message is {} and neither text"),
    ("conversations", turns("user", "assistant", content=" "), "its question is empty"),
    ("conversations", turns("user", "assistant", "user", "assistant", content="<image>x"), "after the first question"),
    ("conversations", {"images": []}, "its texts mark 1 of image, and it names 0"),
    ("conversations", {"messages": "x"}, "its messages are 'x' and not a list"),
    ("records", {"schema": 1}, "it is of schema 1, and this version reads 2"),
    ("records", {"error": "gone"}, "its input failed: gone"),
    ("records", {"time": 1.5}, "it is about a frame of a video"),
    ("records", {"task": "sing"}, "its task is 'sing'"),
    ("records", {"width": 0}, "its width is 0 and not a number of pixels"),
    ("records", {"height": 10.5}, "its height is 10.5 and not a number of pixels"),
    ("records", {"objects": None}, "its objects are None and not a list"),
    ("records", found(label=""), "its label is empty"),
    ("records", found(label="a ; b"), "holds what models write between objects"),
    ("records", found(label="<loc0001>"), "holds what models write between objects"),
    ("records", found(label="a\nb"), "is no short line of text"),
    ("records", found(box=[1, 2, 3]), 'the box of "cat" is [1, 2, 3] and not a list of 4 numbers'),
    ("records", found(box=[1, 2, 1, 15]), 'the box of "cat" is empty'),
    ("records", found(box=[1, 2, 300, 15]), 'the box of "cat" lies outside the picture'),
    ("records", found(box=[1, 2, "x", 15]), "the box of \"cat\" is 'x' and not a number"),
    ("records", found(box=[1, 2, 1e400, 15]), "it holds Infinity, which is no number"),
    (
        "records",
        found(mask={"size": [1, 1], "counts": "x"}),
        'the mask of "cat" is not of the picture\'s size, 40 × 20',
    ),
    ("records", found(mask={"size": [20, 40], "counts": "x"}), 'the runs of the mask of "cat" do not fill 40 × 20'),
    ("records", found(mask={"size": [20, 40], "counts": [799, 2]}), "do not fill 40 × 20"),
]


@pytest.mark.parametrize(("kind", "change", "what"), BROKEN, ids=lambda value: str(value)[:50])
def test_a_broken_row_is_named_and_the_others_are_read(folder, kind, change, what):
    good = ROWS[kind]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (good, good | change, good)))
    one, bad, other = read_examples(folder / "rows.jsonl")
    assert isinstance(bad, BadRow) and bad.where == "rows.jsonl:2"
    assert what in bad.what, bad.what
    assert not isinstance(one, BadRow) and one.exchanges == other.exchanges and one.objects == other.objects


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b"{", "it is no JSON"),
        (b"[1]", "it is [1] and not a JSON object"),
        (b'{"a": "\xff"}', "it is no JSON"),
        (b"[" * 100_000, "it is nested too deep"),
        (b'{"x": ' + b"9" * 5000 + b"}", "it is no JSON"),
        (b"{" + b" " * (17 << 20) + b"}", "it is longer than 16 MiB"),
        (b'{"other": 1}', "it is no row of the format imagefolder"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_line_that_is_no_row(folder, line, what):
    good = json.dumps(ROWS["imagefolder"]).encode()
    (folder / "metadata.jsonl").write_bytes(b"\n".join((b"\xef\xbb\xbf" + good, line, b"", good)))
    one, bad, other = read_examples(folder)
    assert what in bad.what and bad.where == "metadata.jsonl:2"
    assert other.where == "metadata.jsonl:4" and one.exchanges == other.exchanges


def test_rows_of_a_table_that_do_not_fit_its_head(folder):
    (folder / "metadata.csv").write_bytes(b'file_name,text\na.png,x\na.png\na.png,y,z\na.png,\xff\na.png,"q"\n')
    found = [str(one) if isinstance(one, BadRow) else one.exchanges[0].answer for one in read_examples(folder)]
    assert found == [
        "x",
        "metadata.csv:3: it has 1 columns and the head 2",
        "metadata.csv:4: it has 3 columns and the head 2",
        "metadata.csv:5: its text or caption is not in UTF-8",
        "q",
    ]


def coco(**change) -> dict:
    row = {"id": 1, "file_name": "a.png", "width": 40, "height": 20}
    mark = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 10, 10]}
    marks = {key.removeprefix("mark_"): value for key, value in change.items() if key.startswith("mark_")}
    rows = {key: value for key, value in change.items() if not key.startswith("mark_")}
    return {
        "images": [row | rows, row | {"id": 2}],
        "annotations": [mark | marks, mark | {"image_id": 2}],
        "categories": [{"id": 1, "name": "cat"}],
    }


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (coco(file_name="../secret.png"), "lies outside the data's folder"),
        (coco(width=None), "its width is None and not a number"),
        (coco(mark_bbox=[1, 2, 0, 10]), 'the box of "cat" is empty'),
        (coco(mark_bbox=[1, 2, -5, 10]), 'the box of "cat" is empty'),
        (coco(mark_bbox=[30, 2, 20, 10]), 'the box of "cat" lies outside the picture'),
        (coco(mark_bbox="x"), "the bbox of \"cat\" is 'x' and not a list of 4 numbers"),
        (coco(mark_bbox=[1, 2, True, 10]), 'the bbox of "cat" is True and not a number'),
        (coco(mark_category_id=9), "an annotation is of the category 9, which is not listed"),
        (coco(mark_category_id=[]), "an annotation is of the category [], which is not listed"),
        (coco(mark_segmentation=[[1, 2, 3, 4]]), 'the outline of "cat" has 4 numbers, which is no polygon'),
        (coco(mark_segmentation=[[1, 2, 3, 4, 5, 600]]), 'the outline of "cat" lies outside the picture'),
        (coco(mark_segmentation="x"), "and not a list of polygons"),
        (coco(mark_segmentation={"size": [1, 1], "counts": ""}), "is not of the picture's size"),
        (coco(mark_bbox=[NAN] * 4), "it holds NaN, which is no number"),
        (coco(id=[1]), "its id is [1] and not a number or a text"),
        (coco(id=2), "its id 2 is that of another of the images"),
        (coco(mark_image_id=77), "1 annotations are of the image 77, which it does not have"),
        (coco(neg_category_ids=3), "its neg_category_ids are no list"),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, str) else "",
)
def test_broken_coco(folder, data, what):
    (folder / "x.json").write_text(json.dumps(data))
    rows = list(read_examples(folder))
    bad = [one for one in rows if isinstance(one, BadRow)]
    assert bad and what in bad[0].what, rows
    assert any(not isinstance(one, BadRow) and one.images == (folder / "a.png",) for one in rows)


VOC = "<annotation><filename>a.png</filename><size><width>40</width><height>20</height></size>{}</annotation>"
OBJECT = "<object><name>cat</name><bndbox><xmin>{}</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"


@pytest.mark.parametrize(
    ("xml", "what"),
    [
        (VOC.format(OBJECT.format(12)), 'the box of "cat" is empty'),
        (VOC.format(OBJECT.format("x")), "xmin of \"cat\" is 'x' and not a number"),
        (VOC.format(OBJECT.format("nan")), 'xmin of "cat" is nan and not a number'),
        (VOC.format("<object/>"), "it has no label"),
        (VOC.format("").replace("40", "0"), "its width is '0' and not a number of pixels"),
        (
            VOC.format("").replace("40", "0").replace("20", "0").replace("a.png", "broken.png"),
            "of its picture none is known",
        ),
        (VOC.format("").replace("a.png", "../secret.png"), "lies outside the data's folder"),
        (VOC[:-5], "it is no XML"),
        ("<x/>", "it is of 'x' and not an annotation"),
        ('<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>' + VOC.format("&b;"), "it declares a document type"),
        ('<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]>' + VOC.format("&c;"), "it declares a document type"),
        (VOC.format("<a/>" * 200_001), "it has more than 200,000 elements"),
        (VOC.format(" " * (5 << 20)), "it is larger than 4 MiB"),
        (VOC.format("<a>" * 100_000), "it is no XML"),
    ],
    ids=lambda value: value[:60],
)
def test_broken_voc(folder, xml, what):
    (folder / "Annotations").mkdir()
    (folder / "Annotations/a.xml").write_text(VOC.format(OBJECT.format(1)))
    (folder / "Annotations/b.xml").write_text(xml)
    good, bad = read_examples(folder)
    assert isinstance(bad, BadRow) and bad.where == "Annotations/b.xml" and what in bad.what, bad
    assert good.objects[0].label == "cat"


YAML = "train: images\nnames: [cat]\n"


@pytest.mark.parametrize(
    ("labels", "what"),
    [
        ("0 0.5 0.5 0.1", "in line 1 of its labels there are 4 numbers, which are neither a box nor an outline"),
        ("0 0.5 0.5 0.1 x", "in line 1 of its labels a value is 'x' and not a number"),
        ("0 0.5 0.5 nan 0.1", "a value is nan and not a number"),
        ("\n1 0.5 0.5 0.1 0.1", "in line 2 of its labels the class is '1', and data.yaml names 1"),
        ("0.5 0.5 0.5 0.1 0.1", "the class is '0.5'"),
        ("0 0.5 0.5 0 0.1", 'the box of "cat" is empty'),
        ("0 0.9 0.5 0.5 0.1", 'the box of "cat" lies outside the picture'),
        ("0 0.5 0.5 0.1 0.1 2 2", 'the outline of "cat" lies outside the picture'),
        ("0 320 200 100 100", 'the box of "cat" lies outside the picture'),
        ("\ud8ff", "and not a number"),
    ],
    ids=lambda value: value[:60].encode("utf-8", "replace").decode(),
)
def test_broken_labels_of_yolo(folder, labels, what):
    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    for name in ("good", "bad"):
        Image.new("RGB", (9, 9)).save(folder / f"images/{name}.png")
    (folder / "data.yaml").write_text(YAML)
    (folder / "labels/good.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    (folder / "labels/bad.txt").write_text(labels, errors="surrogatepass")
    bad, good = read_examples(folder)
    assert isinstance(bad, BadRow) and what in bad.what, bad
    assert good.objects[0].label == "cat"


BOMB = "a: &a [x, x]\n" + "".join(
    f"{c}: &{c} [*{p}, *{p}]\n" for p, c in zip("abcdefghijklm", "bcdefghijklmn", strict=True)
)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ("names: [", "data.yaml is no YAML"),
        ("names", "data.yaml holds no settings"),
        ("names: !!python/object/apply:os.system [ls]", "data.yaml is no YAML"),
        ("x: y", "data.yaml sets names to None"),
        ("names: 3\ntrain: images", "data.yaml sets names to 3"),
        ("names: {x: y}\ntrain: images", "has a class that is no name"),
        ("names: [a, a]\ntrain: images", "two classes of one name"),
        ("names: ['a;b']\ntrain: images", "has a class that is no name"),
        ("names: [a]", "data.yaml names no images"),
        ("names: [a]\ntrain: 3", "data.yaml sets train to 3"),
        ("names: [a]\ntrain: nowhere", "does not exist"),
        ("names: [a]\ntrain: ../", "lies outside the data's folder"),
        ("names: [a]\ntrain: /etc", "lies outside the data's folder"),
        (BOMB + "names: [a]\ntrain: nowhere", "does not exist"),
        ("x: " + "[" * 5000, "data.yaml is no YAML"),
        ("x: " + "y" * (2 << 20), "data.yaml is larger than 1 MiB"),
    ],
    ids=lambda value: value[:60],
)
def test_broken_settings_of_yolo(folder, settings, what):
    (folder / "data.yaml").write_text(settings)
    with pytest.raises(InputError) as raised:
        list(read_examples(folder / "data.yaml"))
    assert what in str(raised.value)


@pytest.mark.parametrize(
    ("files", "options", "what"),
    [
        ({}, {}, "holds no data in a format that is known"),
        ({"x.jsonl": "{}"}, {}, "holds no data in a format that is known"),
        ({"a.txt": "0 0.5 0.5 0.1 0.1"}, {}, "holds no data in a format that is known"),
        (
            {"a.txt": "words", "metadata.jsonl": json.dumps(ROWS["imagefolder"])},
            {},
            "may be data of several formats: imagefolder, text-beside. Choose one with --format",
        ),
        ({"x.json": "{"}, {"format": "coco"}, "holds nothing of the format coco"),
        ({}, {"format": "tfrecord"}, "There is no format tfrecord. Choose from records,"),
        ({}, {"media": Path("/nowhere")}, "/nowhere is no folder"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_data_of_no_format_or_of_several(folder, files, options, what):
    for name, text in files.items():
        (folder / name).write_text(text)
    with pytest.raises(MmcliError) as raised:
        list(read_examples(folder, **options))
    assert what in str(raised.value)


def test_what_is_not_there_and_what_is_no_file(folder):
    with pytest.raises(InputError, match="nowhere does not exist"):
        read_examples(folder / "nowhere")
    with pytest.raises(InputError, match="neither a file nor a folder"):
        read_examples(folder / "pipe.png")
    with pytest.raises(InputError, match="is in no format that is known"):
        read_examples(folder / "a.png")


def test_a_format_that_is_named_is_taken(folder):
    (folder / "a.txt").write_text("words")
    (folder / "metadata.jsonl").write_text(json.dumps(ROWS["imagefolder"]))
    assert [one.exchanges[0].answer for one in read_examples(folder, format="imagefolder")] == ["x"]
    beside = [one for one in read_examples(folder, format="text-beside") if not isinstance(one, BadRow)]
    assert [one.exchanges[0].answer for one in beside] == ["words"]


def test_a_row_file_that_links_out_of_a_folder_is_no_text(folder):
    (folder.parent / "secret.txt").write_text("secret words")
    (folder / "a.txt").symlink_to("../secret.txt")
    bad = next(iter(read_examples(folder, format="text-beside")))
    assert "its text 'a.txt' lies outside the data's folder" in bad.what


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{"images": [{"id": 1}, {"id"', "is no whole JSON: it is damaged or cut off at byte"),
        ('{"images": [{"id": 1}}]', "is no whole JSON"),
        ('{"images": [{"id": "x]}', "is no whole JSON"),
        ('{"images": [{"id": 1}], "x": ' + "[" * (DEEPEST + 1), "is nested more than 64 deep"),
    ],
    ids=lambda value: value[:40],
)
def test_a_damaged_json_file(folder, text, what):
    (folder / "x.json").write_text(text)
    with pytest.raises((InputError, UsageError)) as raised:
        list(read_examples(folder / "x.json"))
    assert what in str(raised.value)
