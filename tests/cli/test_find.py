"""What is said about objects that a model finds, does not find, and does not know."""

from pathlib import Path

import pytest
from command import mmcli
from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """A folder to work in, with two small photographs in photos/."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("cat", "coffee"):
        Image.open(EXAMPLES / f"{name}.jpg").save(folder / f"{name}.png")
    return folder


@pytest.mark.parametrize("command", ["detect", "segment"])
def test_beams_do_not_go_with_every_way_of_finding(photos, command):
    done = mmcli(command, "cat", "photos/cat.png", "--beams", "3")
    assert (done.code, done.out) == (2, "") and "nano finds each object by itself, so --beams cannot be" in done.err
    done = mmcli(command, "cat", "photos/cat.png", "--beams", "3", "--temperature", "1")
    assert done.code == 2 and "--beams cannot be used with --temperature" in done.err
    assert mmcli(command, "cat", "photos/cat.png", "--beams", "1").out == mmcli(command, "cat", "photos/cat.png").out


def test_an_unknown_thing_is_told_apart_from_an_absent_one(photos):
    unknown = mmcli("detect", "unicorn", "photos", "--json")
    absent = mmcli("detect", "zebra", "photos", "--json")
    assert unknown.code == absent.code == 0
    sentence = 'nano does not know "unicorn"; mmcli models info nano lists what it knows'
    assert unknown.err == f"mmcli: {sentence}\n" and absent.err == ""  # once, not once an image
    assert [record["notes"] for record in unknown.records] == [[sentence], [sentence]]
    assert [record["notes"] for record in absent.records] == [[], []]
    assert all(record["objects"] == [] for record in unknown.records + absent.records)


@pytest.mark.parametrize("words", ["cat, zebra", "cat and zebra", "cat,zebra", "cat & zebra"])
def test_a_list_without_semicolons_is_told_how_lists_are_written(photos, words):
    done = mmcli("detect", words, "photos")
    sentence = f'nano does not know "{words}"; several things are written with semicolons: "cat ; zebra"'
    assert (done.code, done.out, done.err) == (0, "", f"mmcli: {sentence}\n")


def test_the_known_things_of_a_list_are_found_beside_an_unknown_one(photos):
    done = mmcli("detect", "Cats ; unicorn", "photos/cat.png")
    assert done.code == 0 and [line.split("\t")[0] for line in done.out.splitlines()] == ["Cats"]
    assert 'does not know "unicorn"' in done.err and 'looks for "Cats" as "cat"' in done.err
    assert mmcli("detect", "Cats ; unicorn", "photos/cat.png", "--quiet").err == ""


def test_a_record_tells_the_whole_list_and_where_its_objects_are(photos):
    [record] = mmcli("segment", "cup;cat; zebra", "photos/cat.png", "--json").records
    assert record["prompt"] == "segment cup ; cat ; zebra"
    assert [found["label"] for found in record["objects"]] == ["cat"]
    assert record["text"].startswith("<loc") and record["text"].endswith("> cat") and record["text"].count("<seg") == 16
    assert "mask" in record["objects"][0] and record["problems"] == []


def test_no_mask_is_written_of_an_image_without_any_object(photos):
    done = mmcli("segment", "cat ; zebra", "photos", "--mask", "masks/")
    assert done.code == 0 and [path.name for path in Path("masks").rglob("*.png")] == ["cat.png"]
    assert "photos/coffee.png: nothing was found, so masks/" in done.err
    assert Image.open(next(Path("masks").rglob("cat.png"))).getextrema() == (0, 255)


def test_an_older_mask_is_left_as_it_is_and_not_passed_off_as_a_result(photos):
    Path("mask.png").write_bytes(b"older")
    done = mmcli("segment", "zebra", "photos/cat.png", "--mask", "mask.png")
    assert done.code == 0 and Path("mask.png").read_bytes() == b"older"
    assert "nothing was found, so mask.png was not written; the older file there is left as it is" in done.err


@pytest.mark.parametrize("command", [("detect", "zebra"), ("segment", "zebra"), ("caption",)])
def test_no_image_is_drawn_of_an_answer_without_boxes(photos, command):
    done = mmcli(*command, "photos", "--overlay", "drawn/")
    assert done.code == 0 and not Path("drawn").exists()
    assert done.err.count("nothing was found, so drawn/") == 2


def test_an_image_is_not_read_in_full_where_nothing_is_drawn(tmp_path, monkeypatch):
    """It may be larger than what is drawn on."""
    monkeypatch.setattr("mmcli.media.image.FULL_PIXELS", 100)
    monkeypatch.setattr("mmcli.batch.image_reader.HELD_PIXELS", 100)
    image = tmp_path / "cat.jpg"
    Image.open(EXAMPLES / "cat.jpg").resize((2600, 1900)).save(image)
    done = mmcli("detect", "zebra", str(image), "--overlay", str(tmp_path / "drawn.png"))
    assert done.code == 0 and "nothing was found" in done.err
    done = mmcli("detect", "cat", str(image), "--overlay", str(tmp_path / "drawn.png"))
    assert done.code == 1 and "that are drawn on" in done.err


def test_a_chat_without_boxes_draws_nothing_either(photos):
    done = mmcli("chat", "photos/cat.png", "-m", "is there a cat?", "--overlay", "drawn.png")
    assert (done.code, done.out) == (0, "yes\n") and not Path("drawn.png").exists()
    assert "nothing was found, so drawn.png was not written" in done.err


def test_masks_that_a_model_did_not_write_are_said(album, tiny):
    """A random PaliGemma writes boxes with few mask codes, or none."""
    done = mmcli("segment", "cat", "album", "--model", tiny, "--json", "--max-tokens", "60")
    maskless = [record for record in done.records if any("mask" not in found for found in record["objects"])]
    assert maskless
    for record in maskless:
        assert any("no mask" in fault or "its mask is left out" in fault for fault in record["problems"])
    assert "no mask" in done.err or "its mask is left out" in done.err


@pytest.mark.parametrize("more", [(), ("--json",)])
@pytest.mark.parametrize(
    ("question", "sentence"),
    [
        (
            "What is the woman wearing?",
            'nano cannot answer that question. It answers only a few kinds, such as "is there a cat?"',
        ),
        ("is there a unicorn?", 'nano does not know "unicorn". mmcli models info nano lists what it knows.'),
    ],
)
def test_a_question_of_a_kind_that_nano_was_not_taught_is_refused(photos, question, sentence, more):
    for asked in (("-m", question), ()):
        done = mmcli("chat", "photos/cat.png", *asked, *more, stdin=b"" if asked else question.encode())
        assert done.code == 3 and sentence in done.err
        if more:
            [record] = done.records
            assert sentence in record["error"] and record["source"] == "photos/cat.png"
        else:
            assert done.out == ""


def test_a_conversation_goes_on_after_a_question_that_cannot_be_answered(photos):
    lines = b"What is the woman wearing?\nHow many cats are in the picture?\n"
    done = mmcli("chat", "photos/cat.png", "--json", stdin=lines, stdin_tty=True)
    assert done.code == 0 and "nano cannot answer that question" in done.err
    [record] = done.records
    assert (record["prompt"], record["text"]) == ("answer en how many cats are there?", "1")


def test_a_prompt_of_ones_own_goes_to_the_model_as_it_is(photos):
    [record] = mmcli("detect", "unicorn", "photos/cat.png", "--prompt", "detect cat ; dog", "--json").records
    assert record["prompt"] == "detect cat ; dog" and record["notes"] == []
    [record] = mmcli("chat", "photos/cat.png", "--prompt", "answer en why?", "--json").records
    assert record["prompt"] == "answer en why?"


def test_a_family_without_a_way_of_its_own_is_asked_once_and_read_as_it_answers(album, loaded):
    """PaliGemma's list is one prompt, and no grammar holds it: its tokens are those of plain greedy decoding."""
    from mmcli.engine.generate import generate
    from mmcli.media.image import load_image
    from mmcli.media.sources import IMAGE_EXTENSIONS, expand
    from mmcli.models.finding import Found
    from mmcli.tasks.answer import answer
    from mmcli.tasks.detect import DetectRequest

    [source] = expand(["album/b.jpg"], extensions=IMAGE_EXTENSIONS)
    image = load_image(source).image
    request = DetectRequest(words="cat ; dog", max_tokens=12)
    [said] = answer(loaded, [[image]], request)
    inputs = loaded.processor.inputs([[image]], ["detect cat ; dog"])
    steps = generate(loaded.model, inputs, stop_ids=loaded.processor.stop_ids, max_tokens=12)
    assert not isinstance(said, Found) and list(said.ids) == [event.id for [event] in steps][: len(said.ids)]
    assert len(said.ids) == 12 and request.remarks(loaded) == []


def test_what_a_model_knows_is_listed(tiny):
    done = mmcli("models", "info", "nano")
    assert done.code == 0 and "finds 105 things (detect, segment):" in done.out and "hair drier" in done.out
    assert "  is there a cat?\n" in done.out and "languages:\n  en\n" in done.out
    [facts] = mmcli("models", "info", "nano", "--json").records
    assert facts["knows"]["things_per_prompt"] == 1 and "toothbrush" in facts["knows"]["things"]
    assert mmcli("models", "info", tiny, "--json").records[0]["knows"] is None


def test_objects_of_nano_have_a_probability_that_min_score_goes_by(photos):
    [record] = mmcli("detect", "cup ; spoon", "photos/coffee.png", "--min-score", "0.05", "--json").records
    likely = [found["probability"] for found in record["objects"]]
    assert all(0.05 <= p <= 1 for p in likely) and min(likely) < 0.5 <= max(likely)
    assert {found["found_by"] for found in record["objects"]} <= {"both", "decoder", "detector"}
    done = mmcli("detect", "cup ; spoon", "photos/coffee.png", "--min-score", "0.5")
    sure = [found for found in record["objects"] if found["probability"] >= 0.5]
    expected = [f"{found['label']} {found['probability']:.4f}" for found in sure]
    lines = [line.split("\t") for line in done.out.splitlines()]
    assert [f"{line[0]} {line[-1]}" for line in lines] == expected


def test_segmentation_finds_what_detection_finds(photos):
    detected, segmented = (
        mmcli(task, "cup ; spoon ; dining table", "photos/coffee.png", "--json").records[0]
        for task in ("detect", "segment")
    )
    bare = [{key: value for key, value in found.items() if key != "mask"} for found in segmented["objects"]]
    assert bare == detected["objects"] and all("mask" in found for found in segmented["objects"])


@pytest.mark.parametrize(
    ("more", "code", "sentence"),
    [
        (("--model", "TINY"), 2, "gives no probabilities, so --min-score cannot be used"),
        (("--prompt", "detect cat"), 2, "--min-score cannot be used with --prompt"),
        (("--min-score", "1.5"), 2, "--min-score"),
    ],
)
def test_min_score_is_refused_where_there_is_nothing_to_go_by(album, tiny, more, code, sentence):
    more = [str(tiny) if argument == "TINY" else argument for argument in more]
    done = mmcli("detect", "cat", "album/b.jpg", "--min-score", "0.5", *more)
    assert done.code == code and sentence in done.err and "Traceback" not in done.err
