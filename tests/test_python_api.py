"""mmcli in Python: the page that shows it, all that an input may be, and that it says what the command line says."""

import importlib.util
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from audio_files import wav_bytes
from command import mmcli as command
from PIL import Image
from spoken import assert_alike
from turns import turn_model
from video_files import save_video

import mmcli
from mmcli.media.given import is_one, one_source, source_of, sources
from mmcli.media.identity import identity
from mmcli.media.image import load_image
from mmcli.output.record import to_dict
from mmcli.tasks.arguments import in_python

ROOT = Path(__file__).parents[1]
CAT, JFK = str(ROOT / "examples" / "cat.jpg"), str(ROOT / "examples" / "jfk.flac")

_spec = importlib.util.spec_from_file_location("refresh_readme", ROOT / "examples" / "refresh_readme.py")
refresh_readme = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(refresh_readme)


@pytest.fixture(scope="module")
def nano():
    return mmcli.load("nano", device="cpu")


@pytest.fixture(scope="module")
def whisper():
    return mmcli.load("whisper-base", device="cpu")


def without_times(entry: dict) -> dict:
    return entry | {"timings": None}


# -- the page and the package ------------------------------------------------------------------------------------


def test_every_block_of_the_page_prints_what_stands_under_it(monkeypatch):
    """If it is to print something else: python examples/refresh_readme.py"""
    monkeypatch.setenv("MMCLI_CPU_NATIVE", "0")
    blocks = refresh_readme.PROGRAM.findall(refresh_readme.PYTHON_PAGE.read_text("utf-8"))
    assert len(blocks) > 8
    found = refresh_readme.printed_by(block for block, _ in blocks)
    for (block, shown), printed in zip(blocks, found, strict=True):
        if "transcribe" in block:
            assert_alike(printed, shown)
        else:
            assert printed == shown


def test_importing_mmcli_imports_neither_torch_nor_numpy():
    code = (
        "import mmcli, sys\n"
        "assert mmcli.__version__ and 'load' in dir(mmcli)\n"
        "for name in mmcli.__all__: getattr(mmcli, name)\n"
        "heavy = {'torch', 'av', 'huggingface_hub', 'typer'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    light = "import mmcli, sys; heavy = {'torch', 'numpy', 'PIL'} & set(sys.modules); assert not heavy, heavy"
    for one in (code, light):
        done = subprocess.run([sys.executable, "-c", one], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert (Path(mmcli.__file__).parent / "py.typed").is_file()
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = mmcli.nothing


# -- the same as the command line --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda model: model.caption(CAT, token_ids=True), ("caption", CAT, "--token-ids")),
        (lambda model: model.detect(["cat", "dog"], CAT, min_score=0.2), ("detect", "cat;dog", CAT, "--min-score=0.2")),
        (lambda model: model.segment("cat", CAT), ("segment", "cat", CAT)),
        (lambda model: model.chat("how many cats?", CAT), ("chat", CAT, "-m", "how many cats?")),
    ],
    ids=["caption", "detect", "segment", "chat"],
)  # fmt: skip
def test_a_record_is_that_of_the_command(nano, ask, words):
    [printed] = command(*words, "--json").records
    assert without_times(to_dict(ask(nano))) == without_times(printed)


def test_a_transcript_is_that_of_the_command(whisper):
    [printed] = command("transcribe", JFK, "--json", "--duration", "4", "--words").records
    assert without_times(to_dict(whisper.transcribe(JFK, duration=4.0, words=True))) == without_times(printed)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda nano: nano.caption("nothere.jpg"), ("caption", "nothere.jpg")),
        (lambda nano: nano.caption(__file__), ("caption", __file__)),
        (lambda nano: nano.caption(CAT, temperature=-1), None),
        (lambda nano: nano.chat("how many?"), ("chat", "-m", "how many?")),
        (lambda nano: nano.chat("what is said?", CAT, JFK), ("chat", CAT, JFK, "-m", "what is said?")),
        (lambda nano: nano.chat("now?", CAT, system="be brief"), ("chat", CAT, "-m", "now?", "--system", "be brief")),
        (lambda nano: nano.transcribe(JFK), ("transcribe", JFK, "--model", "nano")),
        (lambda nano: mmcli.load("nothing"), ("caption", CAT, "--model", "nothing")),
        (lambda nano: mmcli.load("nano", device="cuda:77"), None),
    ],
)
def test_an_error_is_that_of_the_command(nano, ask, words):
    with pytest.raises(mmcli.MmcliError) as raised:
        ask(nano)
    assert str(raised.value).endswith(".")
    if words is not None:
        done = command(*words)
        said = done.err.strip().replace("--system", "system")  # an option is an argument here
        assert (said, done.code) == (f"mmcli: {raised.value}", raised.value.exit_code)


def test_an_error_names_arguments_and_not_options(nano, monkeypatch):
    with pytest.raises(mmcli.ModelError, match="^nano takes no system text"):
        nano.chat("now?", CAT, system="be brief")
    with pytest.raises(mmcli.UsageError, match="^beams cannot be used with temperature"):
        nano.caption([CAT], beams=2, temperature=1.0)
    with pytest.raises(mmcli.UsageError, match="^every and frames contradict"):
        nano.caption(CAT, every=1.0, frames=2)
    worded = 'Choose quantize="int8" or device="cpu"; --sidecar, --device-x stay'
    with pytest.raises(mmcli.ModelError, match=worded), in_python():
        raise mmcli.ModelError("x", "Choose --quantize int8 or --device cpu; --sidecar, --device-x stay")


# -- options -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ask", "what"),
    [
        (lambda nano: nano.caption(CAT, foo=1), "caption takes no argument 'foo'. It takes beams, detail, every"),
        (lambda nano: nano.segment("cat", CAT, max_token=1), "takes no argument 'max_token'. Did you mean max_tokens?"),
        (lambda nano: nano.chat("what?", CAT, beams=2), "chat takes no argument 'beams'"),
        (lambda nano: nano.transcribe(JFK, langage="en"), "transcribe takes no argument .* mean language?"),
        (lambda nano: nano.caption(CAT, max_tokens="3"), "max_tokens cannot be '3'. Give a whole number from 1 to"),
        (lambda nano: nano.caption(CAT, max_tokens=2.5), "max_tokens cannot be 2.5"),
        (lambda nano: nano.caption(CAT, max_tokens=True), "max_tokens cannot be True"),
        (lambda nano: nano.caption(CAT, max_tokens=0), "max_tokens cannot be 0"),
        (lambda nano: nano.caption(CAT, temperature=float("nan")), "temperature cannot be nan. Give a number from 0"),
        (lambda nano: nano.caption(CAT, prompt=5), "prompt cannot be 5. Give a str"),
        (lambda nano: nano.caption(CAT, token_ids=1), "token_ids cannot be 1. Give True or False"),
        (lambda nano: nano.caption(CAT, detail="huge"), "detail='huge' is not known. Choose 'low'"),
        (lambda nano: nano.caption([CAT], batch_size=0), "batch_size cannot be 0. Give a whole number from 1 to 256"),
        (lambda nano: nano.transcribe([JFK], batch_size="2"), "batch_size cannot be '2'"),
        (lambda nano: nano.transcribe(JFK, task="sing"), "task='sing' is not known"),
        (lambda nano: nano.detect("cat", CAT, min_score=7), "min_score cannot be 7"),
        (lambda nano: mmcli.load("nano", quantize="int2"), "quantize='int2' is not known. Choose 'auto', 'none'"),
    ],
)
def test_an_option_that_makes_no_sense_is_said_at_once(nano, ask, what):
    with pytest.raises(mmcli.UsageError, match=what):
        ask(nano)


def test_none_leaves_an_option_out_and_numbers_may_be_numpy_s(nano):
    plain = nano.caption(CAT)
    given = nano.caption(CAT, max_tokens=np.int64(128), temperature=np.float32(0), seed=None, prompt=None)
    assert without_times(to_dict(given)) == without_times(to_dict(plain))


def test_a_record_is_shown_in_a_line(nano):
    shown = repr(nano.segment("cat", CAT))
    assert shown.startswith("Record(task='segment', source=") and "objects=(Object(label='cat', box=(0, 0, 41" in shown
    assert len(shown) < 600 and "settings" not in shown and "None" not in shown
    segments = tuple(mmcli.Segment(float(start), start + 1.0, "word " * 50) for start in range(9))
    record = mmcli.Record(task="transcribe", source="a.wav", model="x", segments=segments, timestamps="segment")
    assert "… 6 more)" in repr(record) and len(repr(record)) < 900


# -- what an input may be ----------------------------------------------------------------------------------------


def turned(image: Image.Image) -> Image.Image:
    """An image as a camera that was held upright writes it: lying, with a note of the turn."""
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(buffer, "JPEG", quality=95, exif=exif)
    return Image.open(io.BytesIO(buffer.getvalue()))


def test_an_image_in_memory_is_read_as_its_file_would_be():
    colours = np.zeros((4, 6, 3), np.uint8)
    colours[:, :3] = (200, 10, 30)
    for given in (colours, torch.from_numpy(colours), Image.fromarray(colours)):
        image = load_image(source_of(given))
        assert np.array_equal(np.asarray(image.image), colours) and (image.width, image.height) == (6, 4)
    assert load_image(source_of(turned(Image.fromarray(colours)))).image.size == (4, 6)
    modes = ("1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "HSV", "I;16", "F")
    plain = [Image.fromarray(colours).convert("RGB").convert(mode) for mode in modes[:8]]
    plain += [Image.fromarray(np.full((4, 6), 300, np.uint16)), Image.fromarray(np.full((4, 6), 0.5, np.float32))]
    assert [load_image(source_of(image)).image.mode for image in plain] == ["RGB"] * len(modes)


@pytest.mark.parametrize("buffered", [True, False])
def test_an_open_file_is_one_input_and_stays_open(buffered):
    held = io.BytesIO(Path(CAT).read_bytes())
    with open(CAT, "rb", buffering=-1 if buffered else 0) as file:
        for given, name in ((file, CAT), (held, "file")):
            source = one_source(given, frozenset())
            assert is_one(given) and source.name == name and not given.closed
            assert load_image(source).image.size == Image.open(CAT).size


def test_a_file_that_was_opened_as_text_is_refused(nano):
    with open(CAT, encoding="latin-1") as file:
        for given in (file, io.StringIO("a")):
            with pytest.raises(mmcli.UsageError, match="opened as text"):
                nano.caption(given)


def test_a_tensor_of_bfloat16_is_audio_but_no_image():
    samples = torch.tensor([0.0, 0.5, -0.5, 0.25], dtype=torch.bfloat16)
    assert source_of((samples, 16_000)).read() == source_of((samples.float(), 16_000)).read()
    with pytest.raises(mmcli.UsageError, match="is no image"):
        source_of(torch.zeros(4, 6, 3, dtype=torch.bfloat16))


@pytest.mark.parametrize(
    "given",
    [np.zeros((4, 6, 7), np.uint8), np.zeros((4, 6, 2), np.uint8), np.zeros(5), object(), 7, None, ("a", "b", "c")],
)
def test_what_is_no_image_is_said(nano, given):
    with pytest.raises(mmcli.UsageError, match="is no (image|input)|are no"):
        source_of(given)


@pytest.mark.parametrize("given", [3, None, object(), {"image": CAT}])
def test_what_is_neither_an_input_nor_a_list_is_said_at_once(nano, given):
    with pytest.raises(mmcli.UsageError, match="is no input"):
        nano.caption(given)


@pytest.mark.parametrize("given", [np.zeros(5, np.uint8), np.zeros((2, 3, 4), np.float32)])
def test_what_is_no_audio_is_said(given):
    with pytest.raises(mmcli.UsageError, match="is no audio"):
        source_of((given, 16_000))
    for rate in (0, 8000.5, float("nan"), float("inf"), "16000"):
        with pytest.raises(mmcli.UsageError, match="is no audio"):
            source_of((np.zeros(5, np.float32), rate))


def test_a_rate_may_be_a_whole_number_of_any_type():
    samples = np.zeros(5, np.float32)
    files = [source_of((samples, rate)).read() for rate in (16_000, 16_000.0, np.float32(16_000), np.int32(16_000))]
    assert len(set(files)) == 1


def test_a_list_in_the_place_of_one_input_is_to_be_given_one_by_one():
    with pytest.raises(mmcli.UsageError, match="list is no input") as error:
        source_of([CAT, CAT])
    assert "one by one" in error.value.do


def test_audio_in_memory_is_transcribed_as_its_file_is(whisper):
    from mmcli.media.audio import read_audio

    samples, _ = read_audio(next(iter(sources([JFK], frozenset()))))
    samples = samples[:48_000]
    file = whisper.transcribe(wav_bytes(samples, 16_000)).text
    assert "fellow" in file
    stereo = np.stack((samples, samples), axis=1)
    for given in (
        samples,
        torch.from_numpy(samples),
        stereo,
        torch.from_numpy(stereo.T),  # channels first, as torchaudio has it
        (samples * 32767).astype(np.int16),
    ):
        assert_alike(whisper.transcribe((given, 16_000)).text, file)


def test_the_floats_of_a_recording_are_kept_to_the_last_bit():
    from mmcli.media.audio import read_audio

    samples = np.random.default_rng(0).normal(0, 0.2, 16_000).astype(np.float32)
    assert np.array_equal(read_audio(source_of((samples, 16_000)))[0], samples)


def test_one_input_and_many_are_told_apart():
    array = np.zeros((2, 2, 3), np.uint8)
    for one in (
        "a.jpg",
        Path("a.jpg"),
        b"abc",
        bytearray(b"a"),
        array,
        torch.zeros(3),
        (array, 16_000),
        Image.new("L", (1, 1)),
    ):
        assert is_one(one)
    for many in (["a.jpg"], ("a.jpg", "b.jpg"), (array, array), iter(["a.jpg"]), {"a.jpg"}, []):
        assert not is_one(many)


def test_a_video_is_a_record_for_each_frame(nano, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    film = save_video("film.mp4", 25)
    for given in (film, Path(film).read_bytes()):
        alone = nano.detect("cat", given, every=0.5, batch_size=2)
        assert [(record.time, record.frame) for record in alone] == [(0.5 * n, 5 * n) for n in range(5)]
    Path("cut.mp4").write_bytes(Path(film).read_bytes()[:500])
    with pytest.raises(mmcli.InputError, match="cut.mp4"):
        list(nano.detect("cat", "cut.mp4"))
    frames = [record.time for record in nano.detect("cat", [film], every=0.5)]
    assert frames == [0.0, 0.5, 1.0, 1.5, 2.0] and len(list(nano.detect("cat", [film], frames=2))) == 2
    for wrong in ({"every": 1.0, "frames": 2}, {"every": 0.0}, {"frames": 0}):
        with pytest.raises(mmcli.UsageError):
            nano.detect("cat", [film], **wrong)


def test_a_folder_is_many(nano, tmp_path):
    for name in ("b.png", "a.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    for several in (tmp_path, str(tmp_path / "*.png")):
        with pytest.raises(mmcli.UsageError, match="in a list"):
            nano.caption(several)
    named = [Path(record.source).name for record in nano.caption([tmp_path, tmp_path / "b.png", b"broken"])]
    assert named == ["a.png", "b.png", "b.png", "bytes"]
    assert one_source(tmp_path / "a.png", frozenset()).path == tmp_path / "a.png"


def test_what_lies_in_memory_has_a_key_by_its_content(nano):
    data = Path(CAT).read_bytes()
    first, again, other = (nano.caption(one).key for one in (data, bytearray(data), data + b" "))
    assert first == again and first and other not in (first, None)
    assert identity(source_of(data)) == identity(source_of(memoryview(data)))


def test_of_many_a_bad_one_is_a_record_in_its_place(nano):
    records = list(nano.detect("cat", (one for one in (CAT, b"nothing", "gone.jpg")), batch_size=2))
    assert [record.error is None for record in records] == [True, False, False]
    assert records[0].objects and "gone.jpg does not exist" in records[2].error


# -- questions ---------------------------------------------------------------------------------------------------


def test_a_streamed_answer_is_the_answer(nano):
    answer = nano.chat("is there a cup?", CAT, stream=True)
    with pytest.raises(mmcli.UsageError, match="not come to its end"):
        _ = answer.record
    assert "".join(answer) == answer.record.text == nano.chat("is there a cup?", CAT).text
    assert list(answer) == [] and answer.record.text


def test_an_answer_that_is_broken_off_leaves_the_conversation_as_it_was():
    small = mmcli.Model(turn_model, "small")  # one that knows turns
    talk = small.conversation(max_tokens=12)
    asked = "who is it?", CAT
    first = talk.ask(*asked).text
    other = small.conversation(max_tokens=12)
    broken = other.ask("what is this?", CAT, stream=True)
    next(broken)
    broken.close()
    assert other.ask(*asked).text == first
    assert talk.ask("and now?").key is None  # earlier turns decide too
    talk.clear()
    assert talk.ask(*asked).text == first
