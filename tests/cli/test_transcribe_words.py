"""`mmcli transcribe --words` in every format, and what is refused before it is read."""

import re
from pathlib import Path

import numpy as np
import pytest
import srt
import webvtt
from audio_files import wav_bytes
from command import mmcli

from mmcli.errors import InputError
from mmcli.media.audio import read_audio
from mmcli.media.sources import expand
from mmcli.speech.windows import RATE

EXAMPLE = Path(__file__).parents[2] / "examples" / "jfk.flac"
SAID = "ask not what your country can do for you"


def plain(text: str) -> str:
    return "".join(char for char in text.lower() if char.isalpha() or char == " ")


@pytest.fixture(scope="module")
def words() -> list[dict]:
    [record] = mmcli("transcribe", EXAMPLE, "--words", "--json").records
    return [word for segment in record["segments"] for word in segment["words"]]


def seconds(clock: str) -> float:
    hours, minutes, rest = clock.split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(rest)


def test_words_in_vtt_have_their_times_in_rising_order(words):
    done = mmcli("transcribe", EXAMPLE, "--words", "--format", "vtt")
    captions = webvtt.from_string(done.out).captions
    shown = 0
    for caption in captions:
        tags = re.findall(r"<(\d\d):(\d\d):(\d\d\.\d{3})>", caption.raw_text)
        times = [3600 * int(hours) + 60 * int(minutes) + float(seconds) for hours, minutes, seconds in tags]
        assert times == sorted(set(times)) and all(caption.start_in_seconds <= time for time in times)
        assert all(any(time == pytest.approx(word["start"], abs=0.002) for word in words) for time in times)
        shown += len(times)
    # The first word of a cue needs none, and one that is said after the cue had to end cannot have one.
    spans = [(seconds(caption.start), seconds(caption.end)) for caption in captions]
    assert shown == sum(any(start < word["start"] < end for start, end in spans) for word in words) > 10
    assert SAID in plain(" ".join(" ".join(caption.text.split()) for caption in captions))
    assert "<" not in mmcli("transcribe", EXAMPLE, "--format", "vtt").out


def test_words_in_tsv_are_rows(words):
    rows = [row.split("\t") for row in mmcli("transcribe", EXAMPLE, "--words", "--format", "tsv").out.splitlines()[1:]]
    assert [row[2] for row in rows] == [word["text"] for word in words]
    assert [int(row[0]) for row in rows] == [round(1000 * word["start"]) for word in words]


def test_words_time_the_cues_of_srt(words):
    cues = list(srt.parse(mmcli("transcribe", EXAMPLE, "--words", "--format", "srt").out))
    starts = [word["start"] for word in words]
    for cue in cues:
        assert min(abs(cue.start.total_seconds() - start) for start in starts) < 0.002


@pytest.mark.parametrize("more", [[], ["--format", "text"], ["--output", "talk.txt"]])
def test_a_text_shows_no_times_of_words(more, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = mmcli("transcribe", EXAMPLE, "--words", *more)
    assert (done.code, done.out) == (2, "") and "--words" in done.err and not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [["transcribe"], ["chat", "-m", "What is said?"]])
def test_a_model_that_takes_no_audio_is_refused_before_a_recording_is_decoded(arguments, tmp_path):
    """A file of which only the first bytes are a recording: whoever decodes it says that it is damaged."""
    path = tmp_path / "long.wav"
    path.write_bytes(wav_bytes(np.zeros(RATE), RATE)[:30])
    done = mmcli(*arguments[:1], path, *arguments[1:], "--model", "nano")
    assert done.code == 3 and "nano takes no audio" in done.err


def test_what_is_too_long_to_be_read_at_once_is_refused_by_its_header(tmp_path):
    path = tmp_path / "long.wav"
    path.write_bytes(wav_bytes(np.zeros(RATE), RATE))
    with path.open("r+b") as file:
        file.truncate(2 * RATE * 3600 * 14)
        file.seek(40)
        file.write((2 * RATE * 3600 * 14 - 44).to_bytes(4, "little"))
    [source] = expand([path], extensions=frozenset())
    with pytest.raises(InputError, match=r"long.wav is longer than 90 minutes.*mmcli transcribe"):
        read_audio(source, longest=5400)
    (tmp_path / "short.wav").write_bytes(wav_bytes(np.zeros(3 * RATE), RATE))
    [short] = expand([tmp_path / "short.wav"], extensions=frozenset())
    assert len(read_audio(short, longest=3.0)[0]) == 3 * RATE
    with pytest.raises(InputError, match="longer than"):
        read_audio(short, longest=2.9)
