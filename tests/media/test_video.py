"""Frames of videos: the right ones by time and number in every container, upright, large ones made smaller."""

import io
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from file_sources import in_memory, source
from video_files import CODECS, SIZE, drawing, fails, frames_of, number_of, save_video, video_bytes

from mmcli.media import video
from mmcli.media.sampling import Sampling
from mmcli.media.sniff import is_video
from mmcli.media.video import open_video

pytestmark = pytest.mark.usefixtures("here")


@pytest.mark.parametrize("ending", CODECS)
@pytest.mark.parametrize("gop", [5, 100])
def test_frames_are_those_of_their_times_whether_sought_or_read_through(ending, gop):
    path = Path(f"a.{ending}")
    path.write_bytes(video_bytes(ending, 45, gop))
    found, notes = frames_of(path, every=2.0)  # beyond the leap from which on it seeks
    assert [one.number for one in found] == [0, 20, 40]
    assert [round(one.time, 2) for one in found] == [0, 2, 4]
    assert [number_of(one.image.image) for one in found] == pytest.approx([0, 20, 40], abs=1)
    assert not notes


def test_all_frames_of_a_short_step_come_once():
    found, _ = frames_of(save_video("a.mp4", 12), every=0.001)
    assert [one.number for one in found] == list(range(12))


def test_a_number_of_frames_is_spread_evenly():
    path = save_video("a.mp4", 40)
    assert [one.number for one in frames_of(path, count=4)[0]] == [0, 10, 20, 30]
    assert [one.number for one in frames_of(path, count=1)[0]] == [0]
    assert [one.number for one in frames_of(path, count=100)[0]] == list(range(40))


def test_a_length_that_no_header_tells_is_found_by_reading():
    path = save_video("a.mkv", 40, options={"live": "1"})
    with open_video(source(path)) as reader:
        assert reader.seconds is None
        assert [one.number for one in reader.sampled(Sampling(count=4))] == [0, 10, 20, 30]


def test_a_seek_does_not_decode_what_lies_between(monkeypatch):
    path = save_video("a.mp4", 200)
    decoded = []
    monkeypatch.setattr(video, "_check_size", lambda width, height, name: decoded.append(name))
    found, _ = frames_of(path, every=10.0)
    assert [one.number for one in found] == [0, 100]
    assert len(decoded) < 60


@pytest.mark.parametrize("turn", [90, 180, -90])
def test_a_video_is_upright_as_its_rotation_says(turn):
    """The camera was turned: what is written lies on its side."""
    path = save_video("a.mp4", 1, rotation=turn)
    [found] = frames_of(path)[0]
    upright = np.rot90(drawing(0), {90: 1, 180: 2, -90: 3}[turn])  # against the clock
    assert (found.image.height, found.image.width) == upright.shape[:2]
    assert np.abs(np.asarray(found.image.image, int) - upright).mean() < 6


def test_pixels_that_are_not_square_are_made_so():
    [found] = frames_of(save_video("a.mp4", 1, ratio=Fraction(2)))[0]
    assert (found.image.width, found.image.height) == (2 * SIZE[0], SIZE[1]) == found.image.image.size


def test_large_frames_are_kept_smaller_but_tell_their_size(monkeypatch):
    monkeypatch.setattr(video, "HELD_PIXELS", SIZE[0] * SIZE[1] // 3)
    [found] = frames_of(save_video("a.mp4", 1))[0]
    assert (found.image.width, found.image.height) == SIZE
    assert found.image.image.size == (SIZE[0] // 2, SIZE[1] // 2)


def test_a_video_in_memory_is_read_like_a_file():
    with open_video(in_memory("clip", video_bytes("mp4"))) as reader:
        assert [one.number for one in reader.sampled(Sampling())] == [0, 10]


@pytest.mark.parametrize("ending", CODECS)
def test_videos_are_told_by_their_first_bytes(ending):
    assert is_video(video_bytes(ending)[:4096])


def test_images_and_recordings_are_no_videos(bundled_photo=Path(__file__).parents[2] / "examples"):
    for name in ("cat.jpg", "jfk.flac", "service.opus"):
        assert not is_video((bundled_photo / name).read_bytes()[:4096])


# -- what cannot be read -----------------------------------------------------------------------------------------


def test_impossible_places_in_a_file_are_answered_with_a_number():
    steady = video._Steady(io.BytesIO(b"abc"))
    assert steady.seek(-5) < 0 and steady.seek(1) == 1 and steady.read() == b"bc"


def test_an_empty_file_and_other_files_are_refused():
    Path("empty.mp4").touch()
    assert "is empty" in fails("empty.mp4")
    Path("notes.mp4").write_text("no video")
    assert "not a video of a known kind" in fails("notes.mp4")


def test_a_recording_in_a_container_of_videos_is_refused():
    import av

    with av.open("a.mkv", "w") as container:
        track = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(track.encode(frame))
        container.mux(track.encode(None))
    assert "is a recording without images. What is said in it" in fails("a.mkv")


def test_a_video_of_no_frames_is_refused():
    import av

    with av.open("a.avi", "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    assert "no image" in fails("a.avi")


def test_frames_beyond_the_limit_are_refused(monkeypatch):
    path = save_video("a.mp4", 2)
    monkeypatch.setattr(video, "VIDEO_PIXELS", 1000)
    assert "frames of 64 × 48 pixels, more than" in fails(path)


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi", "mts"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.95])
def test_a_video_that_is_cut_short_gives_what_is_there_or_one_sentence(ending, share):
    data = video_bytes(ending, 45)
    Path(f"a.{ending}").write_bytes(data[: round(len(data) * share)])
    try:
        found, _ = frames_of(f"a.{ending}")
    except video.InputError as error:
        assert f"a.{ending} is damaged or cut short" in str(error) or "no image" in str(error)
    else:
        assert 1 <= len(found) <= 5
        assert [one.number for one in found] == [10 * index for index in range(len(found))]


def test_what_is_missing_at_the_end_is_told():
    data = video_bytes("mkv", 45)
    Path("a.mkv").write_bytes(data[: len(data) // 2])
    _, notes = frames_of("a.mkv")
    assert any("it is cut short" in note and "of the 4.5 s" in note for note in notes)


def test_damage_in_the_middle_is_passed_over_and_told():
    data = bytearray(video_bytes("mkv", 45, 5))
    middle = len(data) // 2
    data[middle : middle + len(data) // 5] = bytes(len(data) // 5)
    Path("a.mkv").write_bytes(data)
    found, _ = frames_of("a.mkv")
    assert len(found) >= 2


def test_a_length_beyond_all_measure_costs_nothing():
    """The duration of the track and of the film in an MP4's header is made absurd."""
    data = bytearray(video_bytes("mp4", 20))
    for name, place in ((b"mvhd", 20), (b"mdhd", 20), (b"tkhd", 24)):
        at = data.find(name) + place
        data[at : at + 4] = (0x7FFFFFFF).to_bytes(4, "big")
    Path("a.mp4").write_bytes(data)
    assert len(frames_of("a.mp4")[0]) == 2
    assert 1 <= len(frames_of("a.mp4", count=5)[0]) <= 5
