"""Videos among the inputs of a run: their frames go through the same batches, in order, and fail alone."""

from pathlib import Path

import pytest
from video_files import save_video, video_bytes

from mmcli.batch import frames, images
from mmcli.batch.frames import FrameSource, with_frames
from mmcli.batch.images import run
from mmcli.media.sampling import Sampling
from mmcli.media.sources import IMAGE_EXTENSIONS, expand
from mmcli.tasks.caption import CaptionRequest

REQUEST = CaptionRequest(max_tokens=6)
EVERY = Sampling(1.0)


def sources(*names):
    return expand(names, extensions=IMAGE_EXTENSIONS)


@pytest.fixture
def mixed(album):
    save_video("one.mp4", 25)
    Path("broken.mp4").write_bytes(video_bytes("mp4")[:300])
    save_video("two.mkv", 12)
    return sources("album/b.jpg", "one.mp4", "broken.mp4", "two.mkv", "album/sub/c.png")


@pytest.mark.parametrize("size", [1, 2, 5])
def test_frames_stand_in_the_place_of_their_video_and_one_failure_stops_nothing(mixed, loaded, size):
    outcomes = list(run(mixed, REQUEST, lambda: loaded, model="tiny", batch_size=size, sampling=EVERY))
    found = [(outcome.record.source, outcome.record.time, outcome.record.frame) for outcome in outcomes]
    assert found == [
        ("album/b.jpg", None, None), ("one.mp4", 0, 0), ("one.mp4", 1, 10), ("one.mp4", 2, 20),
        ("broken.mp4", None, None), ("two.mkv", 0, 0), ("two.mkv", 1, 10), ("album/sub/c.png", None, None),
    ]  # fmt: skip
    assert [outcome.record.source for outcome in outcomes if outcome.error] == ["broken.mp4"]
    ends = [outcome.source.last for outcome in outcomes if isinstance(outcome.source, FrameSource)]
    assert ends == [False, False, True, False, True]
    keys = [outcome.record.key for outcome in outcomes if not outcome.error]
    assert None not in keys and len(set(keys)) == len(keys)


def test_a_frame_is_answered_as_the_same_image_is(album, loaded):
    [source] = with_frames(sources(str(save_video("one.mp4", 1))), EVERY)
    source.frame.image.image.save("still.png")
    answers = [
        outcome.record.text
        for name in ("one.mp4", "still.png")
        for outcome in run(sources(name), REQUEST, lambda: loaded, model="tiny", sampling=EVERY)
    ]
    assert answers[0] == answers[1] != ""


def test_no_more_frames_are_decoded_than_wait_for_the_model(monkeypatch, album, loaded):
    alive = []
    made = frames._source
    monkeypatch.setattr(frames, "_source", lambda *given: alive.append(1) or made(*given))
    save_video("long.mp4", 50)
    outcomes = run(sources("long.mp4"), REQUEST, lambda: loaded, model="tiny", batch_size=1, sampling=Sampling(0.1))
    for index, _ in enumerate(outcomes):
        assert len(alive) - index <= images.PREFETCHED + 4
    assert len(alive) == 50


def test_without_a_sampling_a_video_is_no_image(album, loaded):
    save_video("one.mp4", 1)
    [outcome] = run(sources("one.mp4"), REQUEST, lambda: loaded, model="tiny")
    assert "a video, not a" in outcome.record.error


def test_frames_before_damage_are_answered_before_it_is_told(monkeypatch, album, loaded):
    """A video whose later frames are too large."""
    from mmcli.media import video

    save_video("one.mp4", 25)
    seen = []

    def check(width, height, name):
        seen.append(name)
        if len(seen) > 40:
            raise video.InputError(f"{name} grows", "Leave it")

    monkeypatch.setattr(video, "_check_size", check)
    outcomes = list(run(sources("one.mp4"), REQUEST, lambda: loaded, model="tiny", sampling=Sampling(0.1)))
    assert [bool(outcome.error) for outcome in outcomes] == [False] * (len(outcomes) - 1) + [True]
    assert len(outcomes) > 2 and outcomes[-2].source.last
