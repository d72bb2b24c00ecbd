"""Recordings that are damaged, empty or none at all: what can be decoded is given, else one sentence says why not."""

import io

import numpy as np
import pytest
from audio_files import KINDS, fails, lag, load, save, save_sweep, sweep, tone, wav_bytes
from PIL import Image

from mmcli.media.audio import RATE
from mmcli.media.sample_widths import whole_places


@pytest.fixture(autouse=True)
def silent_stderr(capfd):
    """The decoder's own lines never reach the terminal."""
    yield
    assert capfd.readouterr() == ("", "")


# -- nothing in it -----------------------------------------------------------------------------------------------


def test_an_empty_file(tmp_path):
    (tmp_path / "a.wav").touch()
    assert "is empty" in fails(tmp_path / "a.wav")


def test_a_recording_of_no_length(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav_bytes(np.zeros(0), 16000))
    assert "holds no audio" in fails(tmp_path / "a.wav")


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 192000])
@pytest.mark.parametrize("count", [1, 2, 7, 100, 1001])
def test_a_recording_of_a_few_samples_keeps_them_all(tmp_path, count, rate):
    (tmp_path / "a.wav").write_bytes(wav_bytes(np.full(count, 0.5), rate))
    samples, audio = load(tmp_path / "a.wav")
    assert len(samples) == -(-count * RATE // rate)
    assert samples.any()
    assert audio.notes == ()


def test_silence_is_a_recording(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav_bytes(np.zeros(16000), 16000))
    samples, audio = load(tmp_path / "a.wav")
    assert len(samples) == RATE and not samples.any() and not audio.notes


# -- something else ----------------------------------------------------------------------------------------------


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), "red").save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data, what",
    [
        (jpeg(), "is a JPEG picture, not a recording. To describe what it shows: mmcli caption"),
        (b"GIF89a" + bytes(100), "is a GIF picture, not a recording"),
        (b"RIFF\x20\0\0\0WEBPVP8 " + bytes(20), "is a WebP picture, not a recording"),
        (b"%PDF-1.7\n%\xe2\xe3\n", "is a PDF, not a recording"),
        (b"PK\x03\x04" + bytes(100), "is a ZIP archive or an office document, not a recording"),
        (b"\x1f\x8b\x08" + bytes(100), "is compressed with gzip. Unpack it first"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        (b"MThd\0\0\0\x06\0\1\0\1\0\x60", "is MIDI, notes and not audio"),
        (b"<!DOCTYPE html><html><body>", "is a web page, not a recording"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:10\nhttp://127.0.0.1:9/a.ts\n", "is a playlist, not a recording"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "is text, not a recording"),
        ("1\n00:00:00,000 --> 00:00:01,000\nJa, schön\n".encode(), "is text, not a recording"),
        (b'{"schema": 2, "task": "detect"}\n', "is a file of results, not a recording. mmcli segment --from-boxes"),
        (np.random.default_rng(0).bytes(50_000), "is not a recording of a known kind"),
        (bytes(50_000), "is not a recording of a known kind"),
        (b"\x7fELF\x02\x01\x01" + bytes(500), "is not a recording of a known kind"),
    ],
)
@pytest.mark.parametrize("ending", ["wav", "mp3"])
def test_what_is_no_recording_whatever_its_name(tmp_path, data, what, ending):
    (tmp_path / f"a.{ending}").write_bytes(data)
    assert what in fails(tmp_path / f"a.{ending}")


def test_a_folder_and_a_file_that_is_not_there(tmp_path):
    assert "is a folder" in fails(tmp_path)
    assert "does not exist" in fails(tmp_path / "gone.wav")


def test_a_recording_by_another_name(tmp_path):
    save(tmp_path / "a.flac", tone(440, 1, 48000)).rename(tmp_path / "a.mp3")
    assert len(load(tmp_path / "a.mp3")[0]) == RATE


def test_tags_that_are_no_utf_8(tmp_path):
    tags = b"INFOINAM\x06\0\0\0caf\xe9\xff\0"
    data = wav_bytes(tone(440, 1, 16000), 16000) + b"LIST" + len(tags).to_bytes(4, "little") + tags
    (tmp_path / "a.wav").write_bytes(data[:4] + (len(data) - 8).to_bytes(4, "little") + data[8:])
    assert len(load(tmp_path / "a.wav")[0]) == RATE


# -- cut short ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["wav", "aiff", "flac", "mp3", "mkv", "webm", "opus", "aac", "ts"])
def test_of_a_file_cut_short_what_is_there_is_given(tmp_path, kind):
    path = save_sweep(tmp_path / f"a.{kind}", 20)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 5])
    samples, audio = load(path)
    assert 9 < len(samples) / RATE < 14
    assert lag(samples, sweep(20, RATE)[: len(samples)]) == pytest.approx(0, abs=0.03)
    if kind not in ("opus", "aac", "ts"):  # these do not say how long they were
        assert any(note.startswith("it is cut short") and note.endswith("are there") for note in audio.notes)
    assert not any("cut short" in note for note in load(path, duration=2)[1].notes), "not seen, not said"


@pytest.mark.parametrize(("missing", "said"), [(0.2, False), (1.0, True), (3.0, True)])
def test_how_much_may_be_missing_at_the_end_before_it_is_said(tmp_path, missing, said):
    path = save_sweep(tmp_path / "a.wav", 20)
    path.write_bytes(path.read_bytes()[: -round(missing * 44100) * 2])
    samples, audio = load(path)
    assert len(samples) / RATE == pytest.approx(20 - missing, abs=0.01)
    assert any(note.startswith("it is cut short") for note in audio.notes) is said


def test_an_mp4_without_its_index(tmp_path):
    path = save_sweep(tmp_path / "a.m4a", 10)  # its index is its end
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "is damaged or cut short" in fails(path)


def test_an_mp4_cut_short_behind_its_index(tmp_path):
    path = save(tmp_path / "a.m4a", sweep(20, 44100), options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 5])
    samples, audio = load(path)
    assert 9 < len(samples) / RATE < 14
    assert lag(samples, sweep(20, RATE)[: len(samples)]) == pytest.approx(0, abs=0.002)
    assert any(note.startswith("it is cut short") for note in audio.notes)


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_bytes_alone(tmp_path, kind):
    path = save_sweep(tmp_path / f"a.{kind}", 3)
    data = path.read_bytes()
    for length in (1, 4, 12, 20):
        path.write_bytes(data[:length])
        fails(path)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF])
def test_a_wav_whose_writer_could_not_go_back_to_its_header(tmp_path, size):
    """What recorders and `ffmpeg -f wav -` write into a pipe: the length is unknown, so nothing is missing."""
    data = bytearray(wav_bytes(tone(440, 3, 16000), 16000))
    data[4:8] = data[40:44] = size.to_bytes(4, "little")
    (tmp_path / "a.wav").write_bytes(data)
    samples, audio = load(tmp_path / "a.wav")
    assert len(samples) == 3 * RATE
    assert audio.notes == ()


# -- damaged -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["flac", "mp3", "m4a", "aac", "opus", "webm", "mkv", "ts"])
@pytest.mark.parametrize("fill", ["noise", "zeros"])
def test_damage_takes_nothing_from_what_is_around_it(tmp_path, kind, fill):
    path = save_sweep(tmp_path / f"a.{kind}", 20)
    data = bytearray(path.read_bytes())
    begin, length = len(data) // 2, len(data) // 20
    data[begin : begin + length] = np.random.default_rng(1).bytes(length) if fill == "noise" else bytes(length)
    path.write_bytes(data)
    samples, audio = load(path)
    assert np.isfinite(samples).all()
    expected = sweep(20, RATE)
    assert lag(samples[: 8 * RATE], expected[: 8 * RATE]) == pytest.approx(0, abs=0.03)
    assert 17 < len(samples) / RATE < 21
    if kind in ("m4a", "webm", "mkv"):  # containers that know the time of each packet
        assert lag(samples[14 * RATE : 18 * RATE], expected[14 * RATE : 18 * RATE]) == pytest.approx(0, abs=0.03)


def test_damaged_pieces_are_told(tmp_path):
    path = save_sweep(tmp_path / "a.m4a", 20)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 8000] = np.random.default_rng(1).bytes(8000)
    path.write_bytes(data)
    _, audio = load(path)
    assert any("damaged piece" in note for note in audio.notes)


@pytest.mark.parametrize("kind", KINDS)
def test_bits_that_fell_over_anywhere(tmp_path, kind):
    """Whatever is broken: samples or an InputError, and no other error, and no end of memory."""
    path = save_sweep(tmp_path / f"a.{kind}", 3)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    for seed in range(8):
        random = np.random.default_rng(seed)
        data = whole.copy()
        places = random.integers(0, len(data) if seed % 2 else min(len(data), 600), 12)
        data[places] = random.integers(0, 256, 12)
        path.write_bytes(data.tobytes())
        try:
            samples, _ = load(path)
        except AssertionError:
            raise
        except Exception as error:
            assert type(error).__name__ == "InputError", error
        else:
            assert np.isfinite(samples).all() and len(samples) < 3700 * RATE


@pytest.mark.parametrize("rate", [1, 999, 768_001, 2**31 - 1])
def test_a_rate_that_no_recording_has(tmp_path, rate):
    data = bytearray(wav_bytes(tone(440, 1, 16000), 16000))
    data[24:28] = rate.to_bytes(4, "little")
    (tmp_path / "a.wav").write_bytes(data)
    assert "no audio in it can be decoded" in fails(tmp_path / "a.wav")


def test_no_piece_of_a_hopeless_recording_is_decoded(tmp_path, monkeypatch):
    """Each piece may be a gigabyte, or so small that there are millions."""
    monkeypatch.setattr("mmcli.media.audio.AudioReader._frames", None)
    (tmp_path / "a.wav").write_bytes(wav_bytes(np.zeros((100, 300)), 16000))
    (tmp_path / "b.wav").write_bytes(wav_bytes(np.zeros(100), 1))
    for name in "a.wav", "b.wav":
        assert "no audio in it can be decoded" in fails(tmp_path / name)


def test_of_nothing_but_damage_a_beginning_is_enough(tmp_path, monkeypatch):
    decoded = []
    monkeypatch.setattr("mmcli.media.containers._HOPELESS", 20)
    monkeypatch.setattr("mmcli.media.audio.mixes", lambda frame: decoded.append(frame) and False)
    (tmp_path / "a.wav").write_bytes(wav_bytes(tone(440, 60, 16000), 16000))
    assert "no audio in it can be decoded" in fails(tmp_path / "a.wav") and len(decoded) == 20


def test_large_reads_are_answered_in_parts(tmp_path):
    (tmp_path / "a.wav").write_bytes(bytes(3 << 20))
    with open(tmp_path / "a.wav", "rb") as file:
        assert len(whole_places(file).read(2 << 30)) == 1 << 20


def test_more_channels_than_any_recording_has(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav_bytes(np.zeros((100, 300)), 16000))
    assert "no audio in it can be decoded" in fails(tmp_path / "a.wav")
