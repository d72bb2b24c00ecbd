"""What mmcli writes as a data set or as records is read as the same objects."""

import os
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from command import mmcli
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmcli.boxes import area
from mmcli.models.drawn_masks import pixels
from mmcli.output.datasets import DATASETS
from mmcli.output.datasets.items import Item, class_names, link_images
from mmcli.output.masks import polygon_mask
from mmcli.output.record import to_json_line
from mmcli.output.schema import Object, Record
from mmcli.rle import encode
from mmcli.training.data import read_examples

EXAMPLES = Path(__file__).parents[3] / "examples"
WIDTH, HEIGHT = 97, 61

labels = st.text(st.characters(exclude_characters=";<>", exclude_categories=("C", "Z")), min_size=1, max_size=12)


@st.composite
def objects(draw):
    """Objects of whole boxes, some with an ellipse in them."""
    found = []
    for _ in range(draw(st.integers(0, 4))):
        x0, x1 = sorted(draw(st.lists(st.integers(0, WIDTH), min_size=2, max_size=2, unique=True)))
        y0, y1 = sorted(draw(st.lists(st.integers(0, HEIGHT), min_size=2, max_size=2, unique=True)))
        mask = None
        if draw(st.booleans()) and x1 - x0 > 12 and y1 - y0 > 12:
            turns = np.linspace(0, 2 * np.pi, 60, endpoint=False)
            xs, ys = (x0 + x1) / 2 + (x1 - x0) / 2.2 * np.cos(turns), (y0 + y1) / 2 + (y1 - y0) / 2.2 * np.sin(turns)
            mask = encode(polygon_mask([np.stack([xs, ys], 1).ravel().tolist()], WIDTH, HEIGHT))
        found.append(Object(draw(labels), (float(x0), float(y0), float(x1), float(y1)), (0, 0, 1, 1), mask=mask))
    return tuple(found)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / max((one | other).sum(), 1))


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    (folder / "in").mkdir()
    Image.new("RGB", (WIDTH, HEIGHT), "white").save(folder / "in" / "a.png")
    return folder


def written(layout: str, found: tuple[Object, ...], photos: Path, folder: Path) -> None:
    record = Record(
        task="segment", source="in/a.png", model="nano", width=WIDTH, height=HEIGHT, objects=found, prompt="segment x"
    )
    if layout == "records":
        (folder / "found.jsonl").write_text(to_json_line(record), "utf-8", "surrogatepass")
        return
    item = Item(record, PurePosixPath("in/a.png"), PurePosixPath("in/a"), photos / "in" / "a.png")
    for place, parts in DATASETS[layout].files(lambda: [item], class_names([item], ["x"]), folder):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_text("".join(parts), "utf-8")
    if DATASETS[layout].links:
        link_images([item], folder / "images")


@pytest.mark.parametrize("layout", ["coco", "yolo", "voc", "records"])
@settings(max_examples=30)
@given(found=objects())
def test_objects_come_back(layout, photos, tmp_path_factory, found):
    folder = tmp_path_factory.mktemp("written")
    written(layout, found, photos, folder)
    [example] = read_examples(folder, media=photos)
    assert [os.path.realpath(path) for path in example.images] == [os.path.realpath(photos / "in" / "a.png")]
    assert [one.label for one in example.objects] == [one.label for one in found]
    if layout != "voc":
        assert example.exhaustive == {"x"} | {one.label for one in found}
    for back, one in zip(example.objects, found, strict=True):
        masks = layout in ("coco", "yolo", "records") and one.mask is not None
        assert (back.mask is not None) == masks
        edges = np.array(back.box) * [WIDTH, HEIGHT, WIDTH, HEIGHT]
        if layout == "yolo" and masks:  # which writes the outline alone
            rows, columns = np.nonzero(one.mask.pixels)
            assert np.abs(edges - [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).max() < 1.5
        else:
            assert np.abs(edges - one.box).max() < {"coco": 0.01, "records": 0.01, "yolo": 0.01, "voc": 0.51}[layout]
        if masks:
            assert overlap(pixels(back.mask, WIDTH, HEIGHT), one.mask.pixels) > (0.85 if layout == "yolo" else 0.9999)
        assert area(back.box) > 0


def test_pictures_that_links_lead_out_to_are_read_with_leave_only(photos, tmp_path):
    written("yolo", (Object("cat", (1.0, 2.0, 30.0, 40.0), (0, 0, 1, 1)),), photos, tmp_path)
    [bad] = read_examples(tmp_path)
    assert "lies outside the data's folder" in bad.what and "--media" in bad.what
    assert bad.where == "images/in/a.png"


@pytest.mark.parametrize("layout", ["coco", "yolo", None])
def test_what_a_run_into_a_folder_has_written_is_read(layout, album):
    """The records that the run keeps there are no second format; without a data set they are what is read."""
    Image.open(EXAMPLES / "cat.jpg").save("album/cat.png")
    form = ["--format", layout] if layout else []
    done = mmcli("detect", "cat", "album", "-o", "out", "--min-score", "0.5", *form)
    assert done.code == 0, done.err
    found = {example.images[0].stem: example.objects for example in read_examples(Path("out"), media=Path())}
    assert sorted(found) == ["a[red]", "b", "c", "cat"] and [one.label for one in found["cat"]] == ["cat"]
    assert found["cat"][0].box == pytest.approx((0, 0, 0.911, 1), abs=0.01)


def test_captions_and_transcripts_that_were_written_are_read(photos, tmp_path):
    said = Record(
        task="transcribe", source="a.wav", model="w", text="Hello.", seconds=1.0, timestamps="segment", segments=()
    )
    records = [Record(task="caption", source="in/a.png", model="n", width=1, height=1, text="A cat.", prompt="p"), said]
    (photos / "a.wav").write_bytes(b"RIFF")
    (tmp_path / "all.jsonl").write_text("".join(map(to_json_line, records)), "utf-8")
    caption, speech = read_examples(tmp_path / "all.jsonl", media=photos)
    assert (caption.task, caption.exchanges[0].prompt, caption.exchanges[0].answer) == ("caption", None, "A cat.")
    assert (speech.task, speech.audio, speech.exchanges[0].answer) == ("transcribe", (photos / "a.wav",), "Hello.")


def test_the_test_itself_sees_a_mask_that_moved():
    mask = np.zeros((20, 20), bool)
    mask[2:12, 2:12] = True
    assert overlap(mask, np.roll(mask, 2, 1)) < 0.85
