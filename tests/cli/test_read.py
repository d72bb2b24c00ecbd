"""`mmcli read`: with the library of mmcli[read], with a model, and without either."""

import json
import sys

import pytest
import support
from command import OF_NOBODY, mmcli
from PIL import Image, ImageDraw, ImageFont

from mmcli.cli.read import only_with_a_model
from mmcli.tasks import reader, reading_library
from mmcli.tasks.reader import Piece, joined

LINES = ("Opening hours", "9 to 17, closed on Monday")
needs_library = pytest.mark.skipif(not reading_library.is_installed(), reason="needs mmcli[read]")


def sign(lines=LINES, size=(640, 220), font=36) -> Image.Image:
    """An image with lines of text, each a little further to the right."""
    image = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        pen.text((30 + 20 * number, 30 + 90 * number), line, fill=(20, 30, 90), font=ImageFont.load_default(font))
    return image


@pytest.fixture
def signs(tmp_path, monkeypatch):
    """A folder to work in with signs/a.png, the same mirrored on its head as signs/sub/b.jpg, and no image."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "signs" / "sub").mkdir(parents=True)
    sign().save("signs/a.png")
    sign(LINES[:1]).save("signs/sub/b.jpg", quality=95)
    (tmp_path / "signs" / "c.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    return tmp_path


def overlap(one, other):
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(across, 0) * max(down, 0)
    area = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return shared / (area - shared)


# -- the library -------------------------------------------------------------------------------------------------


@needs_library
def test_the_text_of_an_image(signs):
    done = mmcli("read", "signs/a.png")
    assert (done.code, done.err) == (0, "") and done.out == "".join(f"{line}\n" for line in LINES)


@needs_library
def test_where_nothing_is_written_nothing_is_printed(signs):
    Image.new("RGB", (200, 200), "white").save("blank.png")
    for options in (("blank.png",), ("blank.png", "--boxes"), ("blank.png", "blank.png", "--boxes")):
        done = mmcli("read", *options)
        assert (done.code, done.out) == (0, "")
    assert mmcli("read", "blank.png", "signs/sub/b.jpg").out.splitlines()[0] == "blank.png: "


@needs_library
def test_boxes_are_where_the_text_stands(signs):
    done = mmcli("read", "signs/a.png", "--boxes", "--json")
    [record] = done.records
    assert (record["task"], record["model"], record["text"]) == ("read", "rapidocr", "\n".join(LINES))
    assert (record["width"], record["height"]) == (640, 220) and record["key"]
    assert [one["label"] for one in record["objects"]] == list(LINES)
    pen = ImageDraw.Draw(sign())
    for number, one in enumerate(record["objects"]):
        place = (30 + 20 * number, 30 + 90 * number)
        drawn = pen.textbbox(place, one["label"], font=ImageFont.load_default(36))
        assert overlap(one["box"], drawn) > 0.5
        across, down = one["quad"][::2], one["quad"][1::2]
        assert one["box"] == [min(across), min(down), max(across), max(down)]
        assert -0.5 < one["score"] <= 0 and one["raw_box"] == [round(value) for value in one["quad"]]
    columns = [line.split("\t") for line in mmcli("read", "signs/a.png", "--boxes").out.splitlines()]
    assert [row[0] for row in columns] == list(LINES) and all(len(row) == 6 for row in columns)


@needs_library
def test_without_boxes_a_record_has_none(signs):
    [record] = mmcli("read", "signs/a.png", "--json").records
    assert record["objects"] == [] and record["text"]


@needs_library
def test_a_folder_with_a_broken_image(signs):
    done = mmcli("read", "signs", "--json")
    assert done.code == 1 and done.err.count("\n") == 1 and "c.png" in done.err
    by_name = {record["source"]: record for record in done.records}
    assert list(by_name) == ["signs/a.png", "signs/c.png", "signs/sub/b.jpg"]
    assert by_name["signs/sub/b.jpg"]["text"] == LINES[0] and "error" in by_name["signs/c.png"]
    alone = mmcli("read", "signs/sub/b.jpg").out
    assert mmcli("read", "signs", "-q").out.splitlines()[-1] == f"signs/sub/b.jpg: {alone.strip()}"


@needs_library
def test_files_and_overlays_mirror_the_folder(signs):
    done = mmcli("read", "signs", "--output", "text", "--overlay", "drawn")
    assert done.code == 1
    [text], [drawing] = (signs / "text").rglob("b.txt"), (signs / "drawn").rglob("a.png")
    assert text.read_text().startswith(f"{LINES[0]}\t")
    with Image.open(drawing) as drawn:
        assert drawn.size == (640, 220) and drawn.convert("RGB").tobytes() != sign().tobytes()


@needs_library
def test_coordinates_are_those_of_the_full_image(signs):
    """A large image is read from a smaller copy."""
    image, font, place = Image.new("RGB", (4800, 4400), "white"), ImageFont.load_default(120), (1800, 1800)
    pen = ImageDraw.Draw(image)
    pen.text(place, LINES[0], fill=(20, 30, 90), font=font)
    image.save("large.jpg")
    [record] = mmcli("read", "large.jpg", "--boxes", "--json").records
    assert (record["width"], record["text"]) == (4800, LINES[0])
    assert overlap(record["objects"][0]["box"], pen.textbbox(place, LINES[0], font)) > 0.4


@needs_library
def test_nothing_written_is_nothing_found(signs):
    Image.new("RGB", (200, 100), "white").save("blank.png")
    [record] = mmcli("read", "blank.png", "--boxes", "--json").records
    assert (record["text"], record["objects"]) == ("", [])


@pytest.mark.parametrize("size", [(3000, 1), (1, 3000), (1, 1), (2000, 40), (60000, 20)])
def test_thin_images_are_filled_up(size):
    """The library would enlarge them beyond all memory."""
    image = reader._filled_up(reader._fitting(Image.new("RGB", size)))
    assert max(image.size) <= reader.SIDE and min(image.size) >= max(32, max(image.size) // 4)


@needs_library
def test_a_strip_with_a_line_of_text(signs):
    sign(LINES[:1], (1500, 100)).save("strip.png")
    [record] = mmcli("read", "strip.png", "--boxes", "--json").records
    assert record["text"] == LINES[0] and record["objects"][0]["box"][3] <= 110


@needs_library
def test_it_reads_without_a_network(signs):
    """Its weights are in its wheel: nobody is asked for anything."""
    code = (
        "import socket, sys\n"
        "def refuse(*given, **more): raise AssertionError('the network was used')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
        "from mmcli.cli.app import run\nsys.exit(run(['read', 'signs/a.png']))"
    )
    import subprocess

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=signs)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith(LINES[0])


@needs_library
def test_a_library_without_its_weights_is_named(signs, monkeypatch):
    monkeypatch.setattr(reader, "PARTS", {"Det": "nothing"})
    done = mmcli("read", "signs/a.png")
    assert done.code == 3 and "brings no weights" in done.err and "pip install 'mmcli[read]'" in done.err


@needs_library
@pytest.mark.parametrize(
    "options", [["--prompt", "ocr"], ["--temperature", "1"], ["--dtype", "float32"], ["--token-ids"], ["--beams", "2"]]
)
def test_options_that_are_for_models_are_refused(options, signs):
    done = mmcli("read", "signs/a.png", *options)
    assert done.code == 2 and f"{options[0]} is for models, and none is named" in done.err


def test_the_options_for_models_are_all_checked():
    """A field that is added to these groups must be decided upon."""
    from dataclasses import fields

    from mmcli.cli.engine import EngineOptions
    from mmcli.cli.options import AnswerOptions, ImageOptions, ModelOptions, OutputOptions

    only_with_a_model(AnswerOptions(), OutputOptions(), ModelOptions(), ImageOptions(), EngineOptions())
    assert {field.name for field in fields(ModelOptions)} == {
        "model", "revision", "offline", "device", "dtype", "table", "quantize", "adapter",
    }  # fmt: skip


# -- the order of reading ----------------------------------------------------------------------------------------


def piece(text, x0, y0, x1, y1):
    return Piece(text, (x0, y0, x1, y0, x1, y1, x0, y1), 0.9)


def test_pieces_side_by_side_are_one_line():
    pieces = [piece("total", 10, 10, 60, 30), piece("9.50", 200, 12, 250, 31), piece("thanks", 10, 50, 90, 70)]
    assert joined(pieces) == "total 9.50\nthanks"
    assert joined([pieces[1], pieces[0]]) == "total 9.50"
    assert joined([piece("a", 0, 0, 9, 40), piece("b", 20, 36, 29, 60)]) == "a\nb" and joined([]) == ""


def test_corners_are_scaled_to_the_full_image():
    assert piece("a", 1, 2, 3, 4).scaled(2, 10).box == (2, 20, 6, 40)


# -- without the library, and with a model ------------------------------------------------------------------------


def test_without_the_library_one_sentence(signs, monkeypatch):
    monkeypatch.setattr(reading_library, "is_installed", lambda: False)
    done = mmcli("read", "signs/a.png")
    assert (done.code, done.out, done.err.count("\n")) == (3, "", 1)
    assert "nano cannot read. Install the library that does, with pip install 'mmcli[read]'" in done.err
    assert "smolvlm-256m" in done.err


def test_nano_says_that_it_cannot_read(signs):
    done = mmcli("read", "signs/a.png", "--model", "nano")
    assert done.code == 3 and "nano cannot read: it was not taught to" in done.err and "mmcli[read]" in done.err


def test_a_model_reads_by_its_own_prompt(signs, tiny):
    """PaliGemma with random weights: its tokens for the prompt `ocr` are those of the reference."""
    import torch
    from transformers import PaliGemmaForConditionalGeneration
    from transformers.models.paligemma.processing_paligemma import PaliGemmaProcessor

    done = mmcli("read", "signs/a.png", "--model", tiny, "--json", "--token-ids", "--max-tokens", 12)
    [record] = done.records
    assert (record["task"], record["prompt"]) == ("read", "ocr") and done.code == 0
    reference = PaliGemmaForConditionalGeneration.from_pretrained(tiny).eval()
    processor = PaliGemmaProcessor.from_pretrained(tiny, use_fast=False)
    processor.image_processor = support.SiglipImageProcessorPil.from_pretrained(tiny)
    unused = list(range(support.IMAGE, support.FILLED_ROWS))  # of the filled up vocabulary
    inputs = processor(text="<image>ocr", images=sign(), return_tensors="pt")
    with torch.inference_mode():
        tokens = reference.generate(**inputs, max_new_tokens=12, do_sample=False, suppress_tokens=unused)
    assert record["token_ids"] == tokens[0, inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("beams", [None, 2])
def test_a_program_reads_what_the_command_reads(signs, tiny, beams):
    import mmcli as package
    from mmcli.output.record import to_dict

    options = {"max_tokens": 8, "token_ids": True} | ({"beams": beams} if beams else {})
    words = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
    words.remove(True)
    [printed] = mmcli("read", "signs/a.png", "--model", tiny, "--json", *words).records
    model = package.load(tiny)
    assert to_dict(model.read("signs/a.png", **options)) | {"timings": 0} == printed | {"timings": 0}
    assert printed["settings"].get("beams") == beams and printed["token_ids"]
    with pytest.raises(package.ModelError, match="does not tell where it stands"):
        model.read("signs/a.png", boxes=True)
    first, broken = model.read(["signs/a.png", "signs/c.png"], max_tokens=2)
    assert first.task == broken.task == "read" and first.error is None and broken.error


def test_a_model_over_a_folder_and_by_choice(signs, tiny):
    chosen = OF_NOBODY | {"MMCLI_READ_MODEL": str(tiny)}
    done = mmcli("read", "signs", "--json", "--max-tokens", 3, variables=chosen)
    assert done.code == 1 and [record["model"] for record in done.records] == [str(tiny)] * 3
    assert json.loads(mmcli("config", "--json", variables=dict(chosen)).out)["models"]["read"]["model"] == str(tiny)


def test_a_model_that_tells_no_places_refuses_boxes(signs, tiny):
    done = mmcli("read", "signs/a.png", "--model", tiny, "--boxes")
    assert done.code == 3 and "does not tell where it stands. Leave out --boxes and --overlay" in done.err
