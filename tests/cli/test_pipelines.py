"""Results of one command as the input of the next: boxes outlined, objects cut out, and whatever is wrong with them."""

import json
import shutil
from pathlib import Path

import florence2_folders
import numpy as np
import pytest
from command import mmcli
from PIL import Image
from video_files import save_video

from mmcli.output.record import to_dict
from mmcli.output.schema import Object, Record
from mmcli.rle import encode

EXAMPLES = Path(__file__).parents[2] / "examples"
FOUND = ("detect", "cat ; person", "photos", "--json")


@pytest.fixture(autouse=True)
def photos(tmp_path, monkeypatch):
    """Two photographs in a folder to work in."""
    monkeypatch.chdir(tmp_path)
    Path("photos/sub").mkdir(parents=True)
    shutil.copy(EXAMPLES / "cat.jpg", "photos/a.jpg")
    shutil.copy(EXAMPLES / "astronaut.jpg", "photos/sub/b.jpg")


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> bytes:
    """What `detect` writes about them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("found"))
        shutil.copytree(EXAMPLES, "photos", ignore=lambda folder, names: {*names} - {"cat.jpg", "astronaut.jpg"})
        Path("photos/sub").mkdir()
        Path("photos/cat.jpg").rename("photos/a.jpg")
        Path("photos/astronaut.jpg").rename("photos/sub/b.jpg")
        return mmcli(*FOUND).out.encode()


def line(*objects, source="photos/a.jpg", width=451, height=300, **more) -> bytes:
    """A record of the cat, as a line."""
    record = Record(task="detect", source=source, model="m", width=width, height=height, objects=objects, **more)
    return json.dumps(to_dict(record)).encode() + b"\n"


def thing(label="cat", box=(10.0, 20.0, 200.0, 280.0), **more) -> Object:
    return Object(label=label, box=box, raw_box=(), **more)


@pytest.fixture
def outlined(tiny):
    """`segment --from-boxes` by a model that answers at once."""
    decoder = EXAMPLES.parent / "mmcli/assets/nano/mask_decoder.safetensors"

    def run(stdin=b"", *options, results="-"):
        model = ("--model", tiny, "--mask-decoder", decoder)
        return mmcli("segment", results, "--from-boxes", *model, *options, stdin=stdin)

    return run


def objects(record: dict, *left_out: str) -> list[dict]:
    return [{name: value for name, value in one.items() if name not in left_out} for one in record["objects"]]


# -- boxes outlined ----------------------------------------------------------------------------------------------


def test_boxes_that_detect_found_get_the_masks_that_segment_finds(found):
    done = mmcli("segment", "-", "--from-boxes", "--json", stdin=found)
    assert done.code == 0, done.err
    whole = mmcli("segment", "cat ; person", "photos", "--json").records
    assert [objects(one) for one in done.records] == [objects(one) for one in whole]
    assert [one["source"] for one in done.records] == ["photos/a.jpg", "photos/sub/b.jpg"]
    before = [json.loads(one) for one in found.splitlines()]
    assert [objects(one, "mask") for one in done.records] == [objects(one) for one in before]
    assert done.records[0]["settings"]["boxes_by"] == "nano" and done.records[0]["prompt"] == "segment cat"


def test_a_box_is_outlined_as_it_is_alone_and_keeps_what_was_said_of_it(outlined):
    cat, half = thing(score=-3.0, probability=0.25, found_by="both"), thing(box=(100.0, 50.0, 451.0, 300.0))
    [both] = outlined(line(cat, half), "--json").records
    alone = [outlined(line(one), "--json").records[0] for one in (cat, half)]
    assert objects(both) == [one for record in alone for one in objects(record)]
    first = both["objects"][0]
    assert (first["score"], first["probability"], first["found_by"]) == (-3.0, 0.25, "both")
    assert first["box"] == [10.0, 20.0, 200.0, 280.0] and first["raw_box"] == [68, 23, 955, 454]
    assert both["key"] != alone[0]["key"] and first["mask"] != both["objects"][1]["mask"]


def test_records_of_one_image_come_together_and_are_sifted(outlined):
    lines = line(thing(probability=0.5)) + line(thing(label="dog")) + line(thing(box=(11.0, 20.0, 200.0, 280.0)))
    [record] = outlined(lines, "--json", "--nms", "0.5").records
    assert [one["label"] for one in record["objects"]] == ["cat", "dog"]
    assert record["prompt"] == "segment cat ; dog"
    [record] = outlined(line(), "--json").records
    assert record["objects"] == [] and record["prompt"] == ""


def test_what_the_model_does_not_know_keeps_its_box():
    done = mmcli("segment", "-", "--from-boxes", "--json", stdin=line(thing("gearbox; <loc0001>")))
    [strange] = done.records[0]["objects"]
    assert done.code == 0 and strange["box"] == [10.0, 20.0, 200.0, 280.0] and "mask" not in strange
    assert 'nano does not know "gearbox loc0001", so that has no mask' in done.err


def test_labels_may_be_anything(outlined):
    done = outlined(line(thing("<image>"), thing("x" * 5000), thing(""), thing("\ud800\x1b[31m;")), "--json")
    assert done.code == 0, done.err
    assert all(one["mask"]["size"] == [300, 451] for one in done.records[0]["objects"])


def test_a_model_that_cannot_is_refused(tmp_path):
    florence2_folders.write_checkpoint(tmp_path / "florence", florence2_folders.tiny_reference())
    done = mmcli("segment", "-", "--from-boxes", "--model", "florence", stdin=line(thing()))
    assert done.code == 3 and "outlines what it finds itself, and no boxes that are given" in done.err


def test_boxes_decide_whether_a_folder_is_done(outlined):
    run = ("-o", "out/", "--format", "jsonl")
    other = line(thing("owl"), source="photos/sub/b.jpg", width=512, height=512)
    assert "2 pictures done" in outlined(other + line(thing("dog"), thing()), *run).err
    assert "0 pictures done, 2 done before" in outlined(other + line(thing("dog"), thing()), *run).err
    changed = outlined(other + line(thing()), *run)
    assert changed.code == 0 and "1 picture done" in changed.err and "1 done before" in changed.err
    assert [one["box"][0] for one in json.loads(Path("out/photos/a.jsonl").read_text())["objects"]] == [10.0]


def test_boxes_come_from_folders_and_from_frames_of_videos(outlined):
    save_video("film.mp4", 40)
    frames = [thing(box=(float(at), 0.0, 30.0, 20.0)) for at in (1, 2, 3)]
    with_time = [
        line(one, source="film.mp4", width=64, height=48, time=time, frame=int(10 * time))
        for one, time in zip(frames, (0.0, 1.5, 3.0), strict=True)
    ]
    Path("film.jsonl").write_bytes(b"".join(with_time))
    done = outlined(b"", "--json", results="film.jsonl")
    assert done.code == 0, done.err
    assert [(one["time"], one["frame"], one["objects"][0]["box"][0]) for one in done.records] == [
        (0.0, 0, 1.0), (1.5, 15, 2.0), (3.0, 30, 3.0)
    ]  # fmt: skip
    assert outlined(line(thing()), "-o", "out/").code == 0
    assert len(outlined(b"", "--json", results="out").records) == 1


# -- objects cut out ---------------------------------------------------------------------------------------------


def test_each_object_becomes_an_image_of_its_own(found):
    done = mmcli("crop", "-", "-o", "cut", stdin=found)
    assert done.code == 0, done.err
    boxes = {"a": [], "b": []}
    for text in found.splitlines():
        record = json.loads(text)
        for number, one in enumerate(record["objects"], 1):
            boxes[Path(record["source"]).stem].append((number, one["label"], one["box"]))
    names = [f"cut/photos/a-{n}-{label}.jpg" for n, label, _ in boxes["a"]]
    names += [f"cut/photos/sub/b-{n}-{label}.jpg" for n, label, _ in boxes["b"]]
    assert done.out.splitlines() == names and f"{len(names)} pictures in cut" in done.err
    x0, y0, x1, y1 = (round(edge) for edge in boxes["b"][0][2])
    part, whole = (np.asarray(Image.open(name), int) for name in ("cut/photos/sub/b-1-person.jpg", "photos/sub/b.jpg"))
    assert np.abs(part - whole[y0:y1, x0:x1]).mean() < 3
    assert mmcli("crop", "-", "-o", "cut", stdin=found).code == 0  # what it wrote itself it renews


def test_masks_cut_objects_out_and_boxes_alone_are_said_to_have_none():
    mask = np.zeros((300, 451), bool)
    mask[100:200, 50:150] = True
    done = mmcli("crop", "-", "--cutout", "-o", "cut", stdin=line(thing(), thing("dog", mask=encode(mask))))
    assert done.out == "cut/photos/a-2-dog.png\n" and "1 object has no mask" in done.err
    alpha = np.asarray(Image.open("cut/photos/a-2-dog.png"))[:, :, 3]
    assert alpha.shape == (260, 190) and (alpha > 0).sum() == 100 * 100


def test_what_comes_twice_takes_no_place_of_the_first():
    done = mmcli("crop", "-", stdin=line(thing(), thing("dog")) + line(source="x.jpg") + line(thing("owl")))
    assert [Path(name).name for name in done.out.splitlines()] == ["a-1-cat.jpg", "a-2-dog.jpg", "a-3-owl.jpg"]


def test_frames_are_cut_too():
    save_video("film.mp4", 20)
    lines = [line(thing(box=(0.0, 0.0, 9.0, 9.0)), source="film.mp4", width=64, height=48, time=t) for t in (0.0, 1.0)]
    done = mmcli("crop", "-", stdin=b"".join(lines))
    names = [f"crops/film/frame-0000{n:02}-1-cat.png" for n in (0, 10)]
    assert done.code == 0 and done.out.splitlines() == names and Image.open(names[1]).size == (9, 9)


# -- what is wrong with results ----------------------------------------------------------------------------------

BROKEN = [
    (b'{"schema": 2, "task"\n', "Line 1 of standard input is no JSON"),
    (b"\xff\xd8\xff\xe0 JFIF\n", "Line 1 of standard input is no JSON"),
    (b"[1, 2]\n", "Line 1 of standard input is no record"),
    (b'{"schema": 1}\n', "Line 1 of standard input: a record of schema 1 cannot be read"),
    (b'{"schema": 2, "task": "detect"}\n', "Line 1 of standard input: that is no record of schema 2"),
    (line(thing()).replace(b"200.0", b'"far"'), "objects.0.box.2 is 'far'"),
    (line(thing()).replace(b"200.0", b"NaN"), "objects.0.box.2 is nan"),
    (line(thing()).replace(b"200.0", b"1e999"), "objects.0.box.2 is inf"),
    (line(thing()).replace(b'"label"', b'"name"'), "it has a field 'name'"),
    (b'{"a":' * 100_000 + b"\n", "is no JSON"),
    (line(thing(mask=encode(np.ones((9, 9), bool)))), 'the mask of "cat" does not fit a picture of 451 × 300'),
    (line(source="gone.jpg"), None),
    (line(thing(), source="gone.jpg"), "gone.jpg does not exist"),
    (line(thing(), source="photos"), "photos is a folder"),
    (line(thing(), source="photos/*.jpg"), "photos/*.jpg does not exist"),
    (line(thing(), source="-"), "A picture from standard input cannot be read again"),
    (line(thing(), source="ftp://x/y.jpg"), "ftp://x/y.jpg is an address of a kind that is not fetched"),
    (line(thing(), source=("photos/a.jpg", "photos/sub/b.jpg")), "is no single picture"),
    (line(source="photos/a.jpg", error="photos/a.jpg is empty. Get it again."), "photos/a.jpg is empty. Get it again."),
    (line(source="talk.mp3", timestamps="segment"), "talk.mp3 is no picture in which objects are found"),
    (line(thing(), width=900, height=600), "has 451 × 300 pixels, and 900 × 600 when objects were found in it"),
    (line(thing(box=(460.0, 0.0, 500.0, 40.0))), '"cat" lies outside'),
    (line(thing(box=(-40.0, 0.0, 0.0, 40.0))), '"cat" lies outside'),
    (line(thing(box=(40.0, 50.0, 40.0, 50.0))), "or is a point"),
    (line(thing(), source="film.mp4", time=0.5), "film.mp4 does not exist"),
]
IDS = [str(sentence) for _, sentence in BROKEN]


@pytest.mark.parametrize("cuts", [True, False], ids=["crop", "segment"])
@pytest.mark.parametrize(("text", "sentence"), BROKEN, ids=IDS)
def test_what_is_wrong_is_one_sentence_and_the_rest_is_done(outlined, cuts, text, sentence):
    text += line(thing(), source="photos/sub/b.jpg", width=512, height=512)
    done = mmcli("crop", "-", "-q", stdin=text) if cuts else outlined(text)
    if sentence is None:  # nothing to cut out, so it is not looked for
        sentence = "" if cuts else "gone.jpg does not exist"
    outside = "lies outside" in sentence or "is a point" in sentence
    assert done.code == (1 if sentence and (cuts or not outside) else 0)
    assert len(done.err.splitlines()) == bool(sentence) and sentence in done.err, done.err
    assert len(done.out.splitlines()) == text.lstrip().startswith(b"{")


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("crop",), 2, "No results were named"),
        (("crop", "-", "-"), 2, "can be read only once"),
        (("crop", "-"), 1, "- has no results"),
        (("crop", "none.jsonl"), 1, "none.jsonl does not exist"),
        (("crop", "photos"), 1, "No run of mmcli wrote into photos"),
        (("crop", "-", "-o", ""), 2, "it is empty; look for an unset variable"),
        (("segment", "--from-boxes"), 2, "No results were named"),
        (("segment",), 2, "Nothing was named to look for"),
        (("segment", "-", "--from-boxes"), 1, "- has no results"),
        (("segment", "none.jsonl", "--from-boxes"), 1, "none.jsonl does not exist"),
        (("segment", "-", "--from-boxes", "--prompt", "x"), 2, "--from-boxes cannot be used with --prompt"),
        (("segment", "-", "--from-boxes", "--min-score", "0.5"), 2, "--from-boxes cannot be used with --min-score"),
        (("segment", "-", "--from-boxes", "--every", "1s"), 2, "--from-boxes cannot be used with --every"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, code, sentence):
    done = mmcli(*arguments)
    assert done.code == code and sentence in " ".join(done.err.split()) and done.out == ""


def test_a_file_that_is_none_of_ours_is_given_up_soon():
    done = mmcli("crop", "-", stdin=b'{"a": 1}\n' * 1000)
    assert done.code == 1 and len(done.err.splitlines()) == 12  # ten lines, the rest, and the sum
    assert "The rest of standard input is left out" in done.err


def test_no_image_that_is_read_is_written_over():
    Path("crops/photos").mkdir(parents=True)
    shutil.copy("photos/a.jpg", "crops/photos/a-1-cat.jpg")
    done = mmcli("crop", "-", stdin=line(thing()))
    assert done.code == 1 and "was not written by mmcli" in done.err
    assert Path("crops/photos/a-1-cat.jpg").read_bytes() == Path("photos/a.jpg").read_bytes()
