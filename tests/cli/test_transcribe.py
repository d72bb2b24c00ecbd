"""`mmcli transcribe` on a real recording, in all the forms that people have recordings in."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import srt
import webvtt
from audio_files import KINDS, save, save_silent_video, wav_bytes
from command import ONE_THREAD, Terminal, forked, mmcli, through_head

from mmcli.media.audio import read_audio
from mmcli.media.sources import expand
from mmcli.speech.windows import RATE

EXAMPLE = Path(__file__).parents[2] / "examples" / "jfk.flac"
FRENCH = EXAMPLE.parent / "service.opus"
CAT = EXAMPLE.parent / "cat.jpg"
SAID = "ask not what your country can do for you"
SECONDS = 11.0


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    [source] = expand([EXAMPLE], extensions=frozenset())
    return read_audio(source)[0]


@pytest.fixture(scope="module")
def record() -> dict:
    [record] = mmcli("transcribe", EXAMPLE, "--json").records
    return record


def at_rate(audio: np.ndarray, rate: int) -> np.ndarray:
    times = np.arange(int(len(audio) * rate / RATE)) / rate
    return np.interp(times, np.arange(len(audio)) / RATE, audio).astype(np.float32)


def plain(text: str) -> str:
    return "".join(char for char in text.lower() if char.isalpha() or char == " ")


# -- what is said ------------------------------------------------------------------------------------------------


def test_the_record_tells_what_is_said_and_when(record):
    assert SAID in plain(record["text"])
    names = (
        "schema task source model revision version key settings seconds language text truncated segments timestamps "
    )
    names += "notes timings"
    assert list(record) == names.split()
    assert (record["task"], record["model"], record["language"]) == ("transcribe", "whisper-base", "en")
    assert record["seconds"] == pytest.approx(SECONDS, abs=0.05) and record["timestamps"] == "segment"
    edges = [edge for segment in record["segments"] for edge in (segment["start"], segment["end"])]
    assert edges == sorted(edges) and edges[0] >= 0 and edges[-1] <= record["seconds"]
    assert " ".join(segment["text"] for segment in record["segments"]) == record["text"]
    assert record["timings"]["real_time_factor"] > 0


def test_another_language_is_found_out_and_translated():
    [said] = mmcli("transcribe", FRENCH, "--json").records
    assert (said["language"], said["task"]) == ("fr", "transcribe")
    assert "numéro composé" in plain(said["text"])
    [meant] = mmcli("transcribe", FRENCH, "--json", "--task", "translate").records
    assert (meant["language"], meant["task"]) == ("fr", "translate")
    assert "number" in plain(meant["text"]) and "numéro" not in plain(meant["text"])


def test_text_is_a_line_a_segment(record):
    done = mmcli("transcribe", EXAMPLE)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [segment["text"] for segment in record["segments"]]


@pytest.mark.parametrize("kind", ["mp3", "m4a", "opus", "webm"])
def test_every_container_says_the_same(kind, speech, tmp_path):
    path = save(tmp_path / f"talk.{kind}", at_rate(speech, KINDS[kind][1]))
    assert SAID in plain(mmcli("transcribe", path).out)


def test_mp3_on_stdin(speech, tmp_path):
    data = save(tmp_path / "a.mp3", at_rate(speech, 44100)).read_bytes()
    done = mmcli("transcribe", "-", "--json", stdin=data)
    assert done.records[0]["source"] == "-" and SAID in plain(done.records[0]["text"])


def test_the_audio_of_a_video(speech, tmp_path):
    path = save(tmp_path / "film.mp4", at_rate(speech, 48000), video=True)
    assert SAID in plain(mmcli("transcribe", path).out)


def test_a_telephones_stereo_and_a_cinemas_six_channels(speech, tmp_path):
    narrow = at_rate(speech, 8000)
    (tmp_path / "phone.wav").write_bytes(wav_bytes(np.stack((narrow, 0.5 * narrow), axis=1), 8000))
    centre = np.zeros((6, int(SECONDS * 44100)), np.float32)
    wide = at_rate(speech, 44100)[: centre.shape[1]]
    centre[2, : len(wide)] = wide  # FL FR FC LFE SL SR: speech is in the middle
    save(tmp_path / "cinema.flac", centre, layout="5.1", rate=44100)
    done = mmcli("transcribe", tmp_path / "phone.wav", tmp_path / "cinema.flac", "--json")
    assert [SAID in plain(record["text"]) for record in done.records] == [True, True]


# -- what is no speech -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.0, 0.003])
def test_a_minute_of_silence_says_nothing(level, tmp_path):
    noise = level * np.random.default_rng(0).standard_normal(60 * RATE)
    (tmp_path / "silence.wav").write_bytes(wav_bytes(noise, RATE))
    done = mmcli("transcribe", tmp_path / "silence.wav")
    assert (done.code, done.out) == (0, "") and "silence.wav: no speech was found in it" in done.err
    [record] = mmcli("transcribe", tmp_path / "silence.wav", "--json").records
    assert (record["text"], record["segments"], record["language"], record["seconds"]) == ("", [], None, 60.0)


def test_tones_and_chords_say_nothing(tmp_path):
    time = np.arange(30 * RATE) / RATE
    notes = sum(np.sin(2 * np.pi * 220 * 2 ** (step / 12) * time) for step in (0, 4, 7, 12))
    (tmp_path / "organ.wav").write_bytes(wav_bytes(0.2 * notes * (0.6 + 0.4 * np.sin(4 * time)), RATE))
    done = mmcli("transcribe", tmp_path / "organ.wav")
    assert (done.code, done.out) == (0, "")


def test_pauses_hold_no_words_and_times_are_those_of_the_recording(speech, tmp_path):
    """The same speech three times, with pauses of 15 and 6 seconds."""
    pauses = [np.zeros(seconds * RATE, np.float32) for seconds in (15, 6)]
    path = tmp_path / "long.wav"
    path.write_bytes(wav_bytes(np.concatenate((speech, pauses[0], speech, pauses[1], speech)), RATE))
    done = mmcli("transcribe", path, "--json")
    [record] = done.records
    assert plain(record["text"]).count(SAID) == 3  # all of it, and nothing twice
    length = len(speech) / RATE
    spoken = [(0, length), (length + 15, 2 * length + 15), (2 * length + 21, 3 * length + 21)]
    for segment in record["segments"]:
        assert any(a <= segment["start"] <= segment["end"] <= b + 0.4 for a, b in spoken), segment
    starts = [segment["start"] for segment in record["segments"]]
    assert starts == sorted(starts)
    assert f"{path}: 3 windows, 0:2" in done.err and done.err.endswith(
        "without speech left out; all speech found is used\n"
    )


# -- what cannot be transcribed ----------------------------------------------------------------------------------------


def test_bad_files_are_records_and_the_others_go_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("empty.mp3").write_bytes(b"")
    Path("picture.wav").write_bytes((EXAMPLE.parent / "cat.jpg").read_bytes())
    save_silent_video("mute.mp4")
    done = mmcli("transcribe", "empty.mp3", EXAMPLE, "picture.wav", "mute.mp4", "nothere.ogg", "--json")
    assert done.code == 1
    names = ["empty.mp3", str(EXAMPLE), "picture.wav", "mute.mp4", "nothere.ogg"]
    assert [record["source"] for record in done.records] == names
    assert ["error" in record for record in done.records] == [True, False, True, True, True]
    errors = [line for line in done.err.splitlines() if line.startswith("mmcli: ")]
    assert len(errors) == 4 and all(any(name in line for name in names) for line in errors)
    assert "Traceback" not in done.err


def test_one_sample_is_no_speech_and_no_crash(tmp_path):
    (tmp_path / "one.wav").write_bytes(wav_bytes(np.array([0.5]), RATE))
    done = mmcli("transcribe", tmp_path / "one.wav")
    assert done.out == "" and done.code in (0, 1) and "one.wav" in done.err


def test_without_speech_no_model_is_loaded(tmp_path):
    (tmp_path / "silence.wav").write_bytes(wav_bytes(np.zeros(RATE), RATE))
    done = mmcli("transcribe", tmp_path / "silence.wav", "--model", "no/such-model", "--offline")
    assert done.code == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["transcribe", EXAMPLE, "--model", "nano"], "nano takes no audio"),
        (["caption", CAT, "--model", "whisper-base"], "takes recordings, no pictures"),
        (["chat", CAT, "-m", "x", "--model", "whisper-base"], "takes recordings, no pictures"),
        (["transcribe", EXAMPLE, "--model", "./nothere"], "There is no folder ./nothere"),
        (["transcribe", EXAMPLE, "--model", "whisper-tiny.en", "--offline"], "(bundled: nano, whisper-base)"),
    ],
)
def test_a_model_for_something_else_is_one_sentence(arguments, sentence):
    done = mmcli(*arguments)
    assert (done.code, done.out) == (3, "") and sentence in done.err and done.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["transcribe"],
        ["transcribe", EXAMPLE, "--language", "klingon"],
        ["transcribe", EXAMPLE, "--task", "sing"],
        ["transcribe", EXAMPLE, "--format", "doc"],
        ["transcribe", EXAMPLE, "--format", "srt", "--json"],
        ["transcribe", EXAMPLE, EXAMPLE, "--format", "srt"],
        ["transcribe", EXAMPLE, EXAMPLE, "--output", "one.srt"],
        ["transcribe", EXAMPLE, "--output", "talk.pdf"],
        ["transcribe", EXAMPLE, "--start", "1:75"],
        ["transcribe", EXAMPLE, "--duration", "-3"],
    ],
)
def test_what_does_not_fit_together_is_a_usage_error(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = mmcli(*arguments)
    assert (done.code, done.out) == (2, "") and "Traceback" not in done.err
    assert list(tmp_path.iterdir()) == []


# -- forms and places --------------------------------------------------------------------------------------------


def test_subtitles_parse_and_lie_inside_the_recording(tmp_path):
    cues = list(srt.parse(mmcli("transcribe", EXAMPLE, "--format", "srt").out))
    assert SAID in plain(" ".join(cue.content.replace("\n", " ") for cue in cues))
    times = [time.total_seconds() for cue in cues for time in (cue.start, cue.end)]
    assert times == sorted(times) and times[-1] <= SECONDS
    captions = list(webvtt.from_buffer(io.StringIO(mmcli("transcribe", EXAMPLE, "--format", "vtt").out)))
    assert [caption.text for caption in captions] == [cue.content for cue in cues]


def test_tsv_has_milliseconds(record):
    rows = [line.split("\t") for line in mmcli("transcribe", EXAMPLE, "--format", "tsv").out.splitlines()]
    assert rows[0] == ["start", "end", "text"]
    assert [int(row[0]) for row in rows[1:]] == [round(1000 * part["start"]) for part in record["segments"]]


def test_json_is_the_record_as_a_document(record):
    document = json.loads(mmcli("transcribe", EXAMPLE, "--format", "json").out)
    assert document | {"timings": None} == record | {"timings": None}


def test_a_folder_of_outputs_mirrors_the_recordings(tmp_path, monkeypatch, tiny_audio):
    monkeypatch.chdir(tmp_path)
    run = ("transcribe", "talks", "--model", tiny_audio, "--output", "out")
    for place in ("talks/a.flac", "talks/day 2/a.flac"):
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        Path(place).write_bytes(EXAMPLE.read_bytes())
    done = mmcli(*run, "--format", "vtt")
    assert (done.code, done.out) == (0, "")
    written = sorted(str(path) for path in Path("out").rglob("*") if path.suffix == ".vtt")
    assert written == ["out/talks/a.vtt", "out/talks/day 2/a.vtt"]
    again = mmcli(*run, "--format", "vtt")
    assert (again.code, again.err) == (0, "mmcli: 0 recordings done, 2 done before\n")
    assert mmcli(*run, "--format", "srt,csv").code == 0
    assert Path("out/talks/a.srt").exists() and Path("out/talks/a.csv").read_text().startswith("source,task,start")
    assert Path(written[0]).read_text().startswith("WEBVTT")


@pytest.mark.parametrize("suffix", ["srt", "txt", "jsonl", "tsv"])
def test_the_suffix_of_a_file_tells_its_format(suffix, tmp_path, tiny_audio):
    path = tmp_path / f"talk.{suffix}"
    run = ("transcribe", EXAMPLE, "--model", tiny_audio)
    assert mmcli(*run, "--output", path).out == ""
    form = {"txt": "text"}.get(suffix, suffix)
    printed = mmcli(*run, "--format", form).out
    written = path.read_text("utf-8")
    assert printed
    if suffix == "jsonl":
        printed, written = (json.loads(text)["text"] for text in (printed, written))
    assert written == printed


def test_an_output_never_replaces_the_recording(tmp_path):
    path = tmp_path / "talk.txt"  # called so, but a recording
    path.write_bytes(EXAMPLE.read_bytes())
    done = mmcli("transcribe", path, "--output", path)
    assert done.code == 2 and path.read_bytes() == EXAMPLE.read_bytes()


def test_a_part_keeps_the_times_of_the_whole():
    [record] = mmcli("transcribe", EXAMPLE, "--start", "0:03", "--duration", "5", "--json").records
    assert "americans" not in plain(record["text"]) and "ask not" in plain(record["text"])
    assert record["segments"][0]["start"] >= 3 and record["segments"][-1]["end"] <= 8.0
    assert record["seconds"] == pytest.approx(8, abs=0.01)


def test_several_recordings_have_their_names_before_their_lines(tmp_path, monkeypatch, tiny_audio):
    monkeypatch.chdir(tmp_path)
    Path("b[red].flac").write_bytes(EXAMPLE.read_bytes())
    Path("list").write_text(f"b[red].flac\n{EXAMPLE}\n")
    done = mmcli("transcribe", "--files-from", "list", "--batch-size", "1", "--model", tiny_audio)
    names = [line.split(": ")[0] for line in done.out.splitlines()]
    assert sorted(set(names)) == sorted([str(EXAMPLE), "b[red].flac"]) and names == sorted(names, reverse=True)


def test_texts_do_not_depend_on_the_batch(speech, tmp_path, record):
    quiet = tmp_path / "quiet.wav"
    quiet.write_bytes(wav_bytes(0.3 * speech[: 6 * RATE], RATE))
    [first, second] = mmcli("transcribe", quiet, EXAMPLE, "--json", "--batch-size", "2").records
    assert second["segments"] == record["segments"]
    assert first["segments"] == mmcli("transcribe", quiet, "--json").records[0]["segments"]


# -- streams -----------------------------------------------------------------------------------------------------


def test_head_ends_quietly(tiny_audio):
    run = ("transcribe", *[EXAMPLE] * 40, "--model", tiny_audio, "-q", "--batch-size", "1")
    line, code, err = through_head(*run)
    assert line.startswith(str(EXAMPLE).encode()) and (code, err) == (141, b"")


def test_ctrl_c_keeps_what_is_done(tmp_path):
    pytest.importorskip("pty")
    names = [tmp_path / f"{number:02}.flac" for number in range(30)]
    for name in names:
        name.write_bytes(EXAMPLE.read_bytes())
    out = tmp_path / "out"
    terminal = Terminal("transcribe", *names, "--output", out, "--format", "json", "--batch-size", "1")
    terminal.until("02.flac")
    terminal.type("\x03")
    assert terminal.end() == 130
    assert b"Traceback" not in terminal.screen
    written = sorted(path for path in out.rglob("*.json"))
    assert 1 <= len(written) < 30 and all(SAID in plain(json.loads(path.read_text())["text"]) for path in written)


def test_a_terminal_shows_progress_in_the_time_of_audio_and_text_as_it_comes(tmp_path):
    pytest.importorskip("pty")
    terminal = Terminal("transcribe", *[EXAMPLE] * 2, "--batch-size", "1")
    terminal.until("× real time")
    assert terminal.end() == 0
    shown = terminal.screen.decode()
    assert "0:11 of 0:11, " in shown and plain(shown).count("ask what you can do for your country") == 2


def test_without_a_terminal_there_is_no_bar_and_a_hint_may_hold_bytes_that_are_no_characters():
    done = forked("transcribe", EXAMPLE, "--hint", b"caf\xff", variables=os.environ | ONE_THREAD)
    assert (done.code, done.err) == (0, "") and SAID in plain(done.out.replace("\n", " "))
