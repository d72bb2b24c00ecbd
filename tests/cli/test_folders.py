"""Runs into a folder: they go on after whatever ended them, in several forms, and do no work twice."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command import PATIENCE, finish, mmcli, running_mmcli, until
from PIL import Image
from pycocotools.coco import COCO

from mmcli.batch.manifest import NAME, Manifest, read_records
from mmcli.batch.resume import is_as_written

EXAMPLES = Path(__file__).parents[2] / "examples"
FOUND = ("detect", "cat ; person", "photos", "-o", "out/")


@pytest.fixture(autouse=True)
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    copy_photos()


def copy_photos() -> None:
    """Three photographs, and a file that is none."""
    Path("photos/sub").mkdir(parents=True)
    for source, name in (("cat.jpg", "a.jpg"), ("astronaut.jpg", "sub/b.jpg"), ("tower.jpg", "c.jpg")):
        shutil.copy2(EXAMPLES / source, Path("photos", name))
    Path("photos/d.jpg").write_bytes(b"no picture")


def contents(folder="out") -> dict[str, bytes]:
    """The files of a folder, records without what differs from run to run."""
    found = {}
    for path in Path(folder).rglob("*"):
        if not path.is_file() or path.name.startswith(NAME):
            continue
        found[str(path.relative_to(folder))] = data = path.read_bytes()
        if path.suffix == ".jsonl":
            entries = [json.loads(line) for line in data.splitlines()]
            found[str(path.relative_to(folder))] = json.dumps([e | {"timings": None} for e in entries]).encode()
    return found


def test_a_run_again_does_only_what_changed():
    first = mmcli(*FOUND)
    assert first.code == 1 and "3 pictures done" in first.err and "1 failed" in first.err
    again = mmcli(*FOUND)
    assert again.code == 1 and again.out == ""
    assert again.err == "mmcli: 0 pictures done, 3 done before, 1 failed before (--retry-failed tries again)\n"
    shutil.copy(EXAMPLES / "coffee.jpg", "photos/d.jpg")
    mended = mmcli(*FOUND)
    assert mended.code == 0 and "1 picture done" in mended.err and "3 done before" in mended.err
    assert "0 pictures done" not in mmcli("detect", "dog", "photos", "-o", "out/").err  # another question
    assert "4 pictures done" in mmcli(*FOUND, "--force").err
    Path("out/photos/a.txt").unlink()
    assert "1 picture done" in mmcli(*FOUND).err and Path("out/photos/a.txt").exists()


def test_what_failed_is_tried_again_when_asked():
    mmcli(*FOUND)
    tried = mmcli(*FOUND, "--retry-failed")
    assert tried.code == 1 and "0 pictures done, 1 failed, 3 done before" in tried.err and "d.jpg" in tried.err
    failed = [record for record in read_records(Path("out")) if "error" in record]
    assert [record["source"] for record in failed] == ["photos/d.jpg"]


FORMS = ("--format", "jsonl,coco", "--overlay", "out/drawn", "--batch-size", 1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What a run makes that nothing stops."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("whole"))
        copy_photos()
        assert mmcli(*FOUND, *FORMS).code == 1
        return contents()


@pytest.mark.parametrize("moment", [1, 2, 3])
def test_a_killed_run_is_gone_on_with_to_the_same_end(whole, moment):
    with running_mmcli(*FOUND, *FORMS) as child:
        until(lambda: written(moment), child)
        child.send_signal(signal.SIGKILL)
        child.wait()
    again = mmcli(*FOUND, *FORMS)
    assert again.code == 1 and not list(Path("out").rglob("*.part"))
    assert contents() == whole


HELD = ("detect", "cat ; person", "photos", "held.jpg", "-o", "out/", "--format", "jsonl", "--batch-size", 1)


def written(count):
    return len(list(Path("out").rglob("*.jsonl"))) >= count


def test_what_is_left_of_a_killed_run_is_gone_on_with():
    os.mkfifo("held.jpg")
    # The pipe opens when its turn to be read comes, and holds the run back.
    with running_mmcli(*HELD) as child, open("held.jpg", "wb"):
        until(lambda: written(2), child)
        child.send_signal(signal.SIGKILL)
        child.wait()
    kept = len([record for record in read_records(Path("out")) if "error" not in record])
    assert 1 <= kept <= 3
    done = mmcli(*FOUND, "--format", "jsonl", "--batch-size", 1)
    assert done.code == 1 and f"{3 - kept} picture" in done.err and f"{kept} done before" in done.err


def test_two_runs_into_one_folder_exclude_each_other():
    with Manifest(Path("out")):
        refused = mmcli(*FOUND)
        assert refused.code == 2 and "Another run of mmcli is writing into out" in refused.err
    assert mmcli(*FOUND).code == 1


def test_an_interrupted_run_keeps_what_it_did():
    os.mkfifo("held.jpg")
    with running_mmcli(*HELD) as child, open("held.jpg", "wb"):
        until(lambda: written(3), child)
        os.killpg(child.pid, signal.SIGINT)
        _, err = finish(child)
    assert child.returncode == 130 and re.search(rb"interrupted after [234] of 5 pictures", err)
    assert len(read_records(Path("out"))) >= 2


@pytest.mark.skipif(os.name == "nt", reason="ulimit is a shell's")
def test_a_full_disk_loses_nothing_that_was_done():
    mmcli("detect", "cat", "photos/a.jpg", "photos/c.jpg", "-o", "out/")
    command = f"ulimit -f 40; exec {sys.executable} -m mmcli caption photos -o out/ --overlay out/drawn"
    full = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=PATIENCE)
    assert full.returncode in (1, 4) and len(full.stderr.splitlines()) < 6
    assert not list(Path("out").rglob("*.part"))
    with Manifest(Path("out")) as manifest:
        assert all(is_as_written(file) for entry in manifest.entries() for file in entry.files)
    assert mmcli("caption", "photos", "-o", "out/").code == 1 and len(read_records(Path("out"))) >= 3


def test_many_forms_at_once_agree():
    done = mmcli(*FOUND, "--format", "text,jsonl,csv,coco,yolo,voc,labelme")
    assert done.code == 1
    written = contents()
    records = [json.loads(Path("out/photos", name).read_text()) for name in ("a.jsonl", "c.jsonl", "sub/b.jsonl")]
    coco = COCO("out/annotations.json")
    assert [one["name"] for one in coco.dataset["categories"]] == ["cat", "person"]
    assert {one["file_name"] for one in coco.dataset["images"]} == {"photos/a.jpg", "photos/c.jpg", "photos/sub/b.jpg"}
    assert len(coco.anns) == sum(len(record["objects"]) for record in records) > 1
    rows = list(csv.DictReader(Path("out/photos/a.csv").read_text().splitlines()))
    assert [row["label"] for row in rows] == [one["label"] for one in records[0]["objects"]]
    x0, y0, x1, y1 = records[0]["objects"][0]["box"]
    kind, *shares = Path("out/labels/photos/a.txt").read_text().split()[:5]
    size = records[0]["width"], records[0]["height"]
    middle = [(x0 + x1) / 2 / size[0], (y0 + y1) / 2 / size[1], (x1 - x0) / size[0], (y1 - y0) / size[1]]
    assert kind == "0" and np.allclose([float(one) for one in shares], middle, atol=1e-5)
    assert Image.open("out/images/photos/a.jpg").size == size
    assert "Annotations/photos/sub/b.xml" in written and "photos/sub/b.json" in written and "photos/a.txt" in written
    assert mmcli(*FOUND, "--format", "text,jsonl,csv,coco,yolo,voc,labelme").code == 1  # nothing stands in its own way


def test_objects_are_cut_out_counted_and_hidden():
    segment = ("segment", "person", "photos/sub/b.jpg", "--max-objects", 1)
    done = mmcli(*segment, "--crop", "crops", "--cutout", "cut", "--copy", "b.png", "--pixelate", "person", "--count")
    assert (done.code, done.out) == (0, "person\t1\n"), done.err
    [crop], [cut] = Path("crops").iterdir(), Path("cut").iterdir()
    assert crop.name == "b-1-person.jpg" and cut.name == "b-1-person.png" and Image.open(cut).mode == "RGBA"
    before, after = (np.asarray(Image.open(name).convert("RGB")) for name in ("photos/sub/b.jpg", "b.png"))
    assert before.shape == after.shape and 0.1 < (before != after).any(axis=2).mean() < 0.9
    bare = mmcli("detect", "dog", "photos/sub/b.jpg", "--copy", "bare.png", "--blur", "dog")
    assert (
        bare.code == 0 and bare.err == "mmcli: photos/sub/b.jpg: nothing of that was found, so its copy hides nothing\n"
    )
    none = mmcli("detect", "dog", "photos/sub/b.jpg", "--count")
    assert none.out == "dog\t0\n"


def test_only_the_best_are_kept():
    [whole] = mmcli("detect", "person", "photos/sub/b.jpg", "--min-score", 0.001, "--json").records
    [best] = mmcli("detect", "person", "photos/sub/b.jpg", "--min-score", 0.001, "--max-objects", 1, "--json").records
    assert len(whole["objects"]) > 1 and len(best["objects"]) == 1 and best["settings"]["max_objects"] == 1
    assert best["objects"][0]["probability"] == max(one["probability"] for one in whole["objects"])
    [apart] = mmcli("detect", "person", "photos/sub/b.jpg", "--min-score", 0.001, "--nms", 0, "--json").records
    assert 1 <= len(apart["objects"]) < len(whole["objects"]) and apart["key"] != whole["key"]


def test_a_caption_beside_each_image():
    Path("photos/c.txt").write_text("mine")
    done = mmcli("caption", "photos", "--sidecar")
    assert done.code == 1 and "photos/c.txt exists already and was not written by mmcli" in done.err
    assert Path("photos/a.txt").read_text().strip() and Path("photos/c.txt").read_text() == "mine"
    assert not Path("photos/d.txt").exists()
    assert mmcli("caption", "photos/a.jpg", "--sidecar").code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--format", "coco"], "--format coco makes several files"),
        (["--format", "jsonl,csv"], "--format jsonl,csv makes several files"),
        (["--format", "jsonl,nothing", "-o", "out/"], "'nothing' is none of text, json"),
        (["--format", ","], "',' is none of text, json"),
        (["--format", "json,labelme", "-o", "out/"], "--format json and labelme would both write photo.json"),
        (["--json", "--format", "csv"], "--json and --format csv contradict each other"),
        (["--force"], "--force goes with an output folder"),
        (["--retry-failed"], "--retry-failed goes with an output folder"),
        (["--nms", "1.5"], "1.5 is not between 0 and 1"),
        (["--max-objects", "0"], "0 is not between 1 and 10,000"),
        (["--blur", "cat"], "--blur hides objects in pictures, and none is written"),
        (["--pixelate", "*", "--json"], "--pixelate hides objects in pictures, and none is written"),
    ],
)
def test_options_that_do_not_fit_are_said(arguments, said):
    done = mmcli("detect", "cat", "photos", *arguments)
    assert done.code == 2 and said in done.err


def test_a_data_set_takes_no_results_place():
    """A single picture lies flat in the folder, where the data set's own file has the same name."""
    shutil.copy(EXAMPLES / "cat.jpg", "annotations.jpg")
    done = mmcli("detect", "cat", "annotations.jpg", "-o", "out/", "--format", "json,coco")
    assert done.code == 1 and "annotations.json is a result already, and --format coco" in done.err
    assert json.loads(Path("out/annotations.json").read_text())["source"] == "annotations.jpg"


def test_a_value_of_sidecar_is_no_picture():
    done = mmcli("caption", "photos", "--sidecar", "txt")
    assert done.code == 2 and "--sidecar takes no value, and there is no picture called txt" in done.err
    assert not list(Path("photos").rglob("*.txt"))


def test_a_caption_has_no_boxes_for_a_data_set():
    done = mmcli("caption", "photos", "-o", "out/", "--format", "coco")
    assert done.code == 2 and "mmcli caption finds none" in done.err
