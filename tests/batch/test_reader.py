"""Recordings are decoded and cut into windows, one after another, whatever becomes of one of them."""

from pathlib import PurePosixPath

import numpy as np
import pytest
from audio_files import save_tracks, source
from file_sources import in_memory
from loudness import LoudnessDetector, recording

from mmcli.batch.lanes import Lanes
from mmcli.batch.reader import Part, Reader
from mmcli.errors import InputError
from mmcli.media.sources import Source
from mmcli.speech.windows import RATE


def read(*sources: Source, **part):
    return list(Reader(Part(**part), LoudnessDetector, Lanes(1)).read(sources))


def test_the_windows_of_a_recording_come_before_its_end_and_the_next_one_after_it():
    entries = read(recording("a", 0.2, 0.3), recording("quiet", 0.0), recording("b", 0.4))
    shown = [(one.source.name, window and round(float(np.abs(window.audio).max()), 1)) for one, window in entries]
    assert shown == [("a", 0.2), ("a", 0.3), ("a", None), ("quiet", None), ("b", 0.4), ("b", None)]
    ends = [one for one, window in entries if window is None]
    assert [end.windows for end in ends] == [2, 0, 1]
    assert [end.seconds for end in ends] == pytest.approx([14, 7, 7], abs=0.01)
    assert [end.length for end in ends] == pytest.approx([14, 7, 7], abs=0.01)
    assert all(end.error is None and end.spent > 0 for end in ends)
    assert ends[1].left_out == ends[1].seconds


def test_one_that_cannot_be_read_ends_with_an_error_and_the_next_is_read():
    class Strange(Source):
        def head(self, *limits):
            raise LookupError("strange")

    strange = Strange("strange", None, None, PurePosixPath("strange"))
    bad, odd, *rest = read(in_memory("bad.wav", b"nothing"), strange, recording("a", 0.2))
    assert isinstance(bad[0].error, InputError) and "bad.wav" in str(bad[0].error)
    assert "strange cannot be read (LookupError: strange)" in str(odd[0].error)
    assert isinstance(odd[0].error.__cause__, LookupError)
    assert (bad[0].windows, bad[0].seconds, bad[0].left_out) == (0, 0.0, 0.0) and bad[1] is odd[1] is None
    assert [(one.error, window is None) for one, window in rest] == [(None, False), (None, True)]


@pytest.mark.parametrize("error", [OSError, InputError])
def test_an_interruption_is_no_failed_recording_whatever_a_library_made_of_it(error):
    class Interrupted(Source):
        def head(self, *limits):
            try:
                raise KeyboardInterrupt
            except KeyboardInterrupt:
                raise error("broken off")  # noqa: B904 (it has a context, no cause)

    with pytest.raises(KeyboardInterrupt):
        read(Interrupted("a.wav", None, None, PurePosixPath("a.wav")), recording("b", 0.2))


def test_what_is_not_about_a_recording_is_raised():
    class Full(Source):
        def head(self, *limits):
            raise MemoryError

    with pytest.raises(MemoryError):
        read(Full("full", None, None, PurePosixPath("full")))


@pytest.mark.parametrize(
    ("seconds", "start", "duration", "length"),
    [(60, 0, None, 60), (60, 20, None, 40), (60, 20, 10, 10), (60, 20, 90, 40), (60, 70, None, 0), (None, 5, 9, 9)],
)
def test_how_long_a_part_is(seconds, start, duration, length):
    assert Part(start, duration).length(seconds) == length
    assert Part(start).length(None) is None


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Silence, silence, two seconds of speech."""
    speech = 0.3 * np.tile((1.0, -1.0), RATE)
    path = tmp_path_factory.mktemp("film") / "film.mkv"
    return source(save_tracks(path, (0 * speech, 0 * speech, speech), RATE, ("eng", "deu", "fra")))


def test_tracks_are_tried_until_somebody_speaks(film):
    *windows, (end, _) = read(film)
    assert len(windows) == end.windows == 1 and end.identity
    assert end.notes[-1] == "no speech was found in audio tracks 1, 2"


def test_no_other_track_is_read_than_the_one_that_is_asked_for(film):
    [(end, window)] = read(film, track=2)
    assert window is None and end.windows == 0 and not any("no speech" in note for note in end.notes)
