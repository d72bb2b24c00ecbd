"""Videos with drawings: as many frames, in their own rate, upright, what was found drawn until the next look."""

from fractions import Fraction

import av
import numpy as np
import pytest
from file_sources import source
from video_files import drawing, save_video

from mmcli.output import video_overlay
from mmcli.output.overlay import draw
from mmcli.output.schema import Object, Record
from mmcli.output.video_overlay import drawn_video

pytestmark = pytest.mark.usefixtures("here")
BOX = Object("cat", (20, 20, 60, 44), (0, 0, 0, 0))


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def record(time, *objects, size=(64, 48)):
    return Record(
        task="detect", source="a.mp4", model="m", width=size[0], height=size[1], objects=objects, time=time, frame=0
    )


def drawn(path, records, suffix=".mp4"):
    with drawn_video(source(path), records, draw, suffix) as (file, notes):
        data = file.read()
    with open(f"drawn{suffix}", "wb") as out:
        out.write(data)
    with av.open(f"drawn{suffix}") as container:
        [stream] = container.streams
        frames = list(container.decode(stream))
        return stream.codec_context.name, stream.average_rate, frames, notes


def changes(frames):
    """Which frames differ from what was filmed where the box is."""
    images = [np.asarray(frame.to_image(), int) for frame in frames]
    return [bool(np.abs(image - drawing(number))[20:44, 20:60].mean() > 4) for number, image in enumerate(images)]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_what_was_found_is_drawn_until_the_next_frame_that_was_looked_at(suffix):
    save_video("a.mp4", 30)
    codec, rate, frames, notes = drawn("a.mp4", [record(0), record(1, BOX), record(2)], suffix)
    assert (codec, rate, notes) == ("h264", 10, [])
    assert [round(frame.time, 2) for frame in frames] == [round(number / 10, 2) for number in range(30)]
    assert changes(frames) == [False] * 10 + [True] * 10 + [False] * 10


def test_the_rate_may_be_no_whole_number():
    save_video("a.mp4", 5, rate=Fraction(30000, 1001))
    assert drawn("a.mp4", [record(0, BOX)])[1] == Fraction(30000, 1001)


def test_a_turned_video_of_odd_sides_is_written_upright():
    save_video("a.mkv", 2, size=(63, 47), codec="ffv1", rotation=90, pixels="yuv444p")
    _, _, frames, _ = drawn("a.mkv", [record(0)])
    assert (frames[0].width, frames[0].height) == (46, 62)


def test_audio_is_left_out_and_that_is_said():
    save_video("a.mp4", 5, audio=True)
    assert drawn("a.mp4", [record(0, BOX)])[3] == ["its audio is left out of the drawn video"]


def test_without_an_encoder_of_h264_it_is_mpeg4(monkeypatch):
    monkeypatch.setattr(video_overlay, "_encoder", lambda: "mpeg4")
    save_video("a.mp4", 20)
    codec, rate, frames, [note] = drawn("a.mp4", [record(0), record(1, BOX)])
    assert (codec, rate) == ("mpeg4", 10) and "mpeg4" in note
    assert changes(frames) == [False] * 10 + [True] * 10
