"""Subtitles of a video's captions."""

import re

from mmcli.output.schema import Record
from mmcli.output.writers.captions import caption_cues
from mmcli.output.writers.subtitles import to_srt


def captions(**texts):
    return [
        Record(task="caption", source="a.mp4", model="m", text=text, time=float(time[1:]), frame=0)
        for time, text in texts.items()
    ]


def test_a_caption_stays_until_the_next_frame_however_long_that_is():
    cues = caption_cues(captions(t0="a cat", t20="a dog\non a sofa", t21="a bird"), 40)
    assert [(cue.start, cue.end, cue.lines) for cue in cues] == [
        (0, 20, ("a cat",)), (20, 21, ("a dog on a sofa",)), (21, 40, ("a bird",))
    ]  # fmt: skip
    assert to_srt(cues).startswith("1\n00:00:00,000 --> 00:00:20,000\na cat\n\n2\n00:00:20,000 --> 00:00:21,000\n")


def test_a_long_caption_becomes_cues_that_fill_its_time():
    text = " ".join(f"word{number}" for number in range(60))
    cues = caption_cues(captions(t0=text, t10="a cat"), 12)
    assert len(cues) > 3 and cues[0].start == 0 and cues[-1].end == 12
    assert all(one.end == other.start for one, other in zip(cues, cues[1:], strict=False))
    assert all(len(line) <= 42 for cue in cues for line in cue.lines)
    assert re.sub(r"\s+", " ", " ".join(line for cue in cues[:-1] for line in cue.lines)) == text


def test_frames_without_a_text_and_videos_without_frames_have_no_cue():
    assert caption_cues([], 3) == []
    assert [cue.lines for cue in caption_cues(captions(t0="", t1="a cat"), 2)] == [("a cat",)]
    assert caption_cues(captions(t5="a cat"), 0)[0].end > 5
