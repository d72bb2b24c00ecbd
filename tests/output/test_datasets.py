"""Data sets: what other programs read from them is what was found."""

import contextlib
import io
import json
import xml.etree.ElementTree as ET
from copy import deepcopy
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from pycocotools import mask as masks
from pycocotools.coco import COCO

from mmcli.output.datasets import DATASETS
from mmcli.output.datasets.items import Item, class_names, labels, link_images
from mmcli.output.schema import Object, Record
from mmcli.rle import encode
from mmcli.training.data.yolo import _labels_of

FOLDER = Path("/somewhere/out")


def thing(label, box, **more) -> Object:
    return Object(label=label, box=box, raw_box=(0, 0, 1, 1), **more)


def item(name, *objects, size=(100, 80)) -> Item:
    record = Record(task="segment", source=name, model="nano", width=size[0], height=size[1], objects=tuple(objects))
    place = PurePosixPath(name)
    return Item(record, place, place.with_suffix(""), Path("/photos") / name)


def disc() -> np.ndarray:
    rows, columns = np.ogrid[:80, :100]
    return (rows - 40) ** 2 + (columns - 50) ** 2 < 400


@pytest.fixture
def items() -> list[Item]:
    cat = thing("cat", (30.0, 20.0, 70.5, 60.25), probability=0.75, mask=encode(disc()))
    dog = thing("dog", (0.0, 0.0, 10.0, 10.0), score=-0.5)
    return [item("a.jpg", cat, dog), item("sub/empty.png"), item("sub/ü'\"&<.jpg", replace(dog, label="=x\x1b\n<é>"))]


def texts(layout, items, names) -> dict[str, str]:
    return {place: "".join(parts) for place, parts in DATASETS[layout].files(lambda: items, names, FOLDER)}


def test_classes_are_numbered_as_they_were_asked_for(items):
    assert class_names(items, ["dog", "bird", "dog"]) == ["dog", "bird", "=x\x1b\n<é>", "cat"]


def test_coco_is_read_by_pycocotools(items, tmp_path):
    names = class_names(items, ["dog"])
    [(place, text)] = texts("coco", items, names).items()
    (tmp_path / place).write_text(text, "utf-8")
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(tmp_path / place)
        results = coco.loadRes(deepcopy(coco.dataset["annotations"]))  # it writes into what it is given
    assert [one["name"] for one in coco.loadCats(coco.getCatIds())] == names
    assert [one["file_name"] for one in coco.loadImgs(coco.getImgIds())] == [one.place.as_posix() for one in items]
    first, second = coco.loadAnns(coco.getAnnIds(imgIds=[1]))
    assert first["bbox"] == [30.0, 20.0, 40.5, 40.25] and first["score"] == 0.75
    assert np.array_equal(coco.annToMask(first).astype(bool), disc())
    assert first["area"] == disc().sum() == masks.area(coco.annToRLE(first))
    assert second["score"] == pytest.approx(np.exp(-0.5), abs=1e-6) and second["category_id"] == 1
    assert len(results.anns) == 3


def test_coco_of_nothing_at_all(tmp_path):
    [(_, text)] = texts("coco", [], []).items()
    assert json.loads(text)["images"] == []


def test_yolo_holds_boxes_and_outlines_in_shares_of_the_sides(items):
    names = class_names(items, ["dog"])
    written = texts("yolo", items, names)
    assert set(written) == {"data.yaml", "labels/a.txt", "labels/sub/empty.txt", "labels/sub/ü'\"&<.txt"}
    assert written["labels/sub/empty.txt"] == ""
    cat, dog = (line.split() for line in written["labels/a.txt"].splitlines())
    assert cat[0] == str(names.index("cat")) and len(cat) > 10 and len(cat) % 2 == 1
    assert dog == ["0", "0.05", "0.0625", "0.1", "0.125"]  # its centre and size
    xs, ys = np.array(cat[1:], dtype=float)[::2] * 100, np.array(cat[1:], dtype=float)[1::2] * 80
    assert (xs.min(), xs.max(), ys.min(), ys.max()) == pytest.approx((31, 70, 21, 60), abs=1e-3)


@pytest.mark.parametrize(
    ("image", "labels"),
    [
        ("a.jpg", "labels/a.txt"),
        ("sub/images.jpg", "labels/sub/images.txt"),
        ("images/a.jpg", "images/labels/a.txt"),  # a folder that many have
        ("train/images/sub/a.jpg", "images/train/labels/sub/a.txt"),
    ],
)
def test_labels_of_yolo_lie_where_they_are_looked_for(image, labels):
    one = item(image, thing("cat", (30.0, 20.0, 70.5, 60.25)))
    assert set(texts("yolo", [one], ["cat"])) == {"data.yaml", labels}
    assert _labels_of(Path("images", image)) == Path(labels)


def test_the_names_of_yolo_are_read_by_a_yaml_parser(items):
    yaml = pytest.importorskip("yaml")
    names = class_names(items, ["dog: 1", "#no", '"quoted"'])
    data = yaml.safe_load(texts("yolo", items, names)["data.yaml"])
    assert "path" not in data and data["train"] == "images"  # else it would be looked for where Python was started
    assert list(data["names"].values()) == names and list(data["names"]) == list(range(len(names)))
    assert data["train"] == data["val"] == "images"


def test_voc_counts_pixels_from_one(items):
    written = texts("voc", items, [])
    root = ET.fromstring(written["Annotations/a.xml"])
    assert root.findtext("filename") == "a.jpg" and root.findtext("size/width") == "100"
    box = root.find("object/bndbox")
    assert [box.findtext(edge) for edge in ("xmin", "ymin", "xmax", "ymax")] == ["31", "21", "70", "60"]
    [odd] = ET.fromstring(written["Annotations/sub/ü'\"&<.xml"]).findall("object")
    assert odd.findtext("name") == "=x\\x1b\n<é>"


def test_labelme_names_the_image_from_where_it_lies(items):
    written = texts("labelme", items, [])
    entry = json.loads(written["a.json"])
    assert (FOLDER / entry["imagePath"]).resolve() == Path("/photos/a.jpg")
    kinds = [shape["shape_type"] for shape in entry["shapes"]]
    assert kinds == ["polygon", "rectangle"] and entry["shapes"][1]["points"] == [[0, 0], [10, 10]]
    assert (entry["imageWidth"], entry["imageHeight"], entry["imageData"]) == (100, 80, None)


def test_no_two_images_share_their_labels():
    places = [PurePosixPath(name) for name in ("a.jpg", "a.png", "b/a.jpg", "a", "a.png.png", "c.tar.gz")]
    found = labels(places)
    assert len(set(found.values())) == len(places)
    assert [str(one) for one in found.values()][:3] == ["a", "a.png", "b/a"]


def test_images_are_linked_where_their_labels_say(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jpg").write_bytes(b"pixels")
    place = PurePosixPath("sub/a.jpg")
    record = Record(task="detect", source="a", model="nano", width=1, height=1)
    one = Item(record, place, PurePosixPath("sub/a-2"), tmp_path / "in/a.jpg")
    for _ in range(2):  # what lies there already stays
        link_images([one], tmp_path / "out/images")
    assert (tmp_path / "out/images/sub/a-2.jpg").read_bytes() == b"pixels"
