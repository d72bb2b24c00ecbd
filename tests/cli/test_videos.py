"""Videos on the command line: their frames in every form, drawn videos, subtitles, folders of results."""

import json
import re
import shutil
from pathlib import Path

import av
import pytest
from command import mmcli
from PIL import Image
from video_files import save_video

EXAMPLES = Path(__file__).parents[2] / "examples"
TIMES = re.compile(r"\d\d:\d\d:\d\d,\d{3} --> \d\d:\d\d:\d\d,\d{3}")


@pytest.fixture(autouse=True)
def film(tmp_path, monkeypatch) -> Path:
    """A film of 2.5 seconds at ten frames a second."""
    monkeypatch.chdir(tmp_path)
    return save_video("film.mp4", 25)


@pytest.fixture
def cat() -> Path:
    """A film of a cat, whom the bundled model finds; its second half shows coffee."""
    stills = [Image.open(EXAMPLES / name).convert("RGB").resize((320, 240)) for name in ("cat.jpg", "coffee.jpg")]
    with av.open("cat.mp4", "w") as container:
        stream = container.add_stream("libx264", rate=4)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for number in range(8):
            container.mux(stream.encode(av.VideoFrame.from_image(stills[number // 4])))
        container.mux(stream.encode(None))
    return Path("cat.mp4")


def caption(tiny, *arguments, **more):
    return mmcli("caption", "--model", tiny, "--max-tokens", "5", *arguments, **more)


@pytest.mark.parametrize(
    ("options", "numbers"),
    [((), [0, 10, 20]), (("--every", "0.5s"), [0, 5, 10, 15, 20]), (("--every", "2"), [0, 20]),
     (("--every", "0:01"), [0, 10, 20]), (("--frames", "2"), [0, 12])],
)  # fmt: skip
def test_frames_are_taken_as_asked(tiny, options, numbers):
    done = caption(tiny, "film.mp4", "--json", *options)
    assert (done.code, [record["frame"] for record in done.records]) == (0, numbers)
    assert [record["time"] for record in done.records] == [number / 10 for number in numbers]
    assert {record["source"] for record in done.records} == {"film.mp4"}


def test_a_line_of_text_tells_the_time(tiny):
    lines = caption(tiny, "film.mp4", "--every", "0.5").out.splitlines()
    assert [line.split(":")[0] for line in lines] == [f"film.mp4#t={time}" for time in ("0", "0.5", "1", "1.5", "2")]
    assert caption(tiny, "film.mp4", "--format", "csv").out.splitlines()[2].startswith("film.mp4#t=1,caption,")


def test_a_film_on_standard_input_is_known_without_its_name(tiny):
    done = caption(tiny, "-", stdin=Path("film.mp4").read_bytes())
    assert [line.split(":")[0] for line in done.out.splitlines()] == ["-#t=0", "-#t=1", "-#t=2"]


def test_a_film_in_a_folder_is_taken_only_where_frames_are_asked_for(tiny):
    Path("holiday").mkdir()
    shutil.move("film.mp4", "holiday/film.mp4")
    shutil.copy(EXAMPLES / "cat.jpg", "holiday/b.jpg")
    assert [one["source"] for one in caption(tiny, "holiday", "--json").records] == ["holiday/b.jpg"]
    both = caption(tiny, "holiday", "--json", "--frames", "1").records
    assert [(one["source"], one.get("frame")) for one in both] == [("holiday/b.jpg", None), ("holiday/film.mp4", 0)]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [(("--every", "0"), "is less than 0.001 seconds"), (("--every", "soon"), "is no time"),
     (("--frames", "0"), "is not between"), (("--every", "1", "--frames", "2"), "contradict each other"),
     (("--overlay", "out.png"), "names one file"), (("-o", "out.json"), "holds one record")],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(tiny, options, sentence):
    done = caption(tiny, "film.mp4", *options)
    assert done.code == 2 and sentence in " ".join(done.err.split())


def test_a_broken_film_is_a_record_and_the_others_are_done(tiny):
    Path("broken.mp4").write_bytes(Path("film.mp4").read_bytes()[:500])
    done = caption(tiny, "broken.mp4", "film.mp4", "--json")
    assert done.code == 1
    assert ["error" in record for record in done.records] == [True, False, False, False]
    assert "broken.mp4 is damaged or cut short" in done.err


# -- of the video as a whole -------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [("--format", "srt"), ("-o", "film.srt")])
def test_captions_become_subtitles(tiny, place):
    done = caption(tiny, "film.mp4", *place)
    assert done.code == 0, done.err
    text = done.out or Path("film.srt").read_text("utf-8")
    assert TIMES.findall(text) == [
        "00:00:00,000 --> 00:00:01,000", "00:00:01,000 --> 00:00:02,000", "00:00:02,000 --> 00:00:02,500"
    ]  # fmt: skip


def test_captions_of_all_frames_stand_beside_the_video(tiny):
    shutil.copy(EXAMPLES / "cat.jpg", "b.jpg")
    done = caption(tiny, "film.mp4", "b.jpg", "--sidecar")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert Path("film.txt").read_text("utf-8").splitlines() == lines[:3] and lines[0].startswith("film.mp4#t=0: ")
    assert Path("b.txt").read_text("utf-8").strip() == lines[3].removeprefix("b.jpg: ")


def test_subtitles_are_of_captions_of_one_video(tiny):
    shutil.copy(EXAMPLES / "cat.jpg", "b.jpg")
    assert "b.jpg is no video" in caption(tiny, "b.jpg", "--format", "srt").err
    assert caption(tiny, "film.mp4", "b.jpg", "--format", "srt").code == 2
    assert "only mmcli caption" in mmcli("detect", "cat", "film.mp4", "--format", "vtt").err


def test_a_folder_of_results_has_a_file_for_each_film_and_goes_on_where_it_ended(tiny):
    shutil.copy(EXAMPLES / "cat.jpg", "b.jpg")
    arguments = ("film.mp4", "b.jpg", "--format", "jsonl,srt", "-o", "out/")
    done = caption(tiny, *arguments)
    assert done.code == 0, done.err
    assert {path.name for path in Path("out").iterdir() if not path.name.startswith(".")} == {
        "film.jsonl", "film.srt", "b.jsonl"
    }  # fmt: skip
    assert [json.loads(line)["frame"] for line in Path("out/film.jsonl").read_text().splitlines()] == [0, 10, 20]
    assert "2 done before" in caption(tiny, *arguments).err
    Path("out/film.srt").unlink()
    assert "1 done before" in caption(tiny, *arguments).err and Path("out/film.srt").exists()


def frames(path):
    with av.open(str(path)) as container:
        return [frame.to_image() for frame in container.decode(video=0)]


@pytest.mark.parametrize("place", ["drawn.mp4", "drawn/"])
def test_what_was_found_is_drawn_into_a_video(cat, place):
    done = mmcli("detect", "cat", cat, "--overlay", place)
    assert done.code == 0 and done.out.startswith("cat.mp4#t=0\tcat\t")
    path = Path("drawn/cat.mp4") if place.endswith("/") else Path(place)
    drawn, filmed = frames(path), frames(cat)
    assert len(drawn) == len(filmed) == 8
    changed = [
        max(abs(a - b) for a, b in zip(one.resize((40, 30)).tobytes(), other.resize((40, 30)).tobytes(), strict=True))
        for one, other in zip(drawn, filmed, strict=True)
    ]
    assert min(changed[:4]) > 60 > max(changed[4:])


def test_nothing_found_writes_no_video(cat):
    done = mmcli("detect", "car", cat, "--overlay", "drawn.mp4")
    assert "nothing was found, so drawn.mp4 was not written" in done.err and not Path("drawn.mp4").exists()


def test_a_drawn_video_of_an_image_is_refused():
    shutil.copy(EXAMPLES / "cat.jpg", "b.jpg")
    done = mmcli("detect", "cat", "b.jpg", "--overlay", "drawn.mp4")
    assert done.code == 2 and "is a video, and b.jpg is none" in done.err


def test_the_film_itself_is_never_written_over(cat):
    before = cat.read_bytes()
    done = mmcli("detect", "cat", cat, "--overlay", "cat.mp4")
    assert done.code == 2 and cat.read_bytes() == before


def test_masks_of_frames_lie_in_a_folder_called_like_the_film(cat):
    done = mmcli("segment", "cat", cat, "--mask", "masks/")
    assert done.code == 0, done.err
    assert [str(path) for path in sorted(Path("masks").rglob("*.png"))] == ["masks/cat/frame-000000.png"]
