"""Recordings from everywhere: pipes, addresses, streams; and the memory they take."""

import io
import os
import subprocess
import sys
import threading
import tracemalloc
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from audio_files import KINDS, lag, save_sweep, source, sweep, swept, tone, wav_bytes
from naming import only

from mmcli.errors import InputError
from mmcli.media.audio import RATE, open_audio, read_audio
from mmcli.media.sources import RECORDING_EXTENSIONS, expand


def holds_the_sweep(one_source) -> None:
    samples, audio = read_audio(one_source)
    assert abs(lag(samples, sweep(20, RATE))) <= 0.03
    assert len(samples) == pytest.approx(20 * RATE, abs=0.05 * RATE)
    assert not audio.notes


@pytest.mark.parametrize("kind", KINDS)
def test_standard_input(kind):
    """Whatever comes, MP4 with its index at the end too."""
    holds_the_sweep(only("-", stdin=io.BytesIO(swept(kind, 20))))


def test_a_fifo(tmp_path):
    pipe = tmp_path / "a.mp3"
    os.mkfifo(pipe)
    thread = threading.Thread(target=lambda: pipe.write_bytes(swept("m4a", 20)))
    thread.start()
    one = source(pipe)
    holds_the_sweep(one)
    thread.join()
    holds_the_sweep(one)  # and again, from memory


@pytest.mark.parametrize("kind", ["mp3", "mp4"])
def test_a_web_address(tmp_path, kind):
    save_sweep(tmp_path / f"a.{kind}", 20)
    handler = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        holds_the_sweep(only(f"http://127.0.0.1:{server.server_port}/a.{kind}"))
        with pytest.raises(InputError, match="the server answered 404"):
            open_audio(only(f"http://127.0.0.1:{server.server_port}/b.{kind}"))
        server.shutdown()


def test_a_folder_gives_its_recordings_and_videos(tmp_path):
    for name in ("a.MP3", "b.opus", "c.mp4", "d.webm", "e.txt", "f.jpg", "g.ts"):
        (tmp_path / name).touch()
    found = expand([str(tmp_path)], extensions=RECORDING_EXTENSIONS)
    assert [Path(one.name).name for one in found] == ["a.MP3", "b.opus", "c.mp4", "d.webm"]


@pytest.mark.parametrize(
    "name", ["concat:a.wav|b.wav", "-i.wav", "a%03d.wav", "a b'\"$.wav", "http:a.wav", "subfile,,a.wav"]
)
def test_names_that_mean_something_to_ffmpeg_are_names(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(wav_bytes(tone(440, 1, 16000), 16000))
    assert len(read_audio(source(name))[0]) == RATE


# -- reading -----------------------------------------------------------------------------------------------------


def test_blocks_are_those_of_the_whole(tmp_path):
    path = save_sweep(tmp_path / "a.flac", 20)
    with open_audio(source(path)) as reader:
        blocks = list(reader)
    assert all(0 < len(block) <= RATE for block in blocks)
    np.testing.assert_array_equal(np.concatenate(blocks), read_audio(source(path))[0])


def test_a_reader_lets_go_of_its_file(tmp_path):
    path = save_sweep(tmp_path / "a.flac", 20)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with open_audio(source(path)) as reader:
            next(iter(reader))
        reader.close()
    (tmp_path / "b.wav").write_bytes(b"text")
    with pytest.raises(InputError):
        open_audio(source(tmp_path / "b.wav"))
    assert len(os.listdir("/proc/self/fd")) == before


def test_recordings_are_read_in_threads_at_once(tmp_path):
    path = save_sweep(tmp_path / "a.mp3", 20)
    expected = read_audio(source(path))[0]
    results = []
    threads = [threading.Thread(target=lambda: results.append(read_audio(source(path))[0])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4 and all(np.array_equal(result, expected) for result in results)


def test_reading_needs_no_torch_and_naming_needs_no_ffmpeg():
    code = (
        "import sys, mmcli.media.audio\n"
        "assert not {'av', 'torch', 'PIL'} & set(sys.modules), 'slow to import'\n"
        "import mmcli.media.mixing, mmcli.media.containers\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# -- memory ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hour(tmp_path_factory) -> Path:
    """An hour of 8 kHz, half of it silence that takes no room on the disk."""
    path = tmp_path_factory.mktemp("hour") / "a.wav"
    data = bytearray(wav_bytes(tone(440, 1, 8000), 8000))
    size = 3600 * 16000
    data[4:8], data[40:44] = (size + 36).to_bytes(4, "little"), size.to_bytes(4, "little")
    with path.open("wb") as file:
        file.write(data[:44])
        for _ in range(1800):
            file.write(data[44:])
        file.truncate(44 + size)
    return path


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="memory is reported differently here")
def test_memory_stays_flat_over_an_hour(hour):
    samples, sizes = 0, []
    with open_audio(source(hour)) as reader:
        assert reader.info.seconds == 3600
        for block in reader:
            samples += len(block)
            sizes.append(resident())
    assert samples == 3600 * RATE
    assert max(sizes[60:]) - sizes[60] < 10 << 20


def test_the_whole_is_in_memory_once(hour):
    tracemalloc.start()
    try:
        samples, _ = read_audio(source(hour), duration=900)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(samples) == 900 * RATE
    assert peak < 1.1 * samples.nbytes


def test_what_a_pipe_gave_is_in_memory_once(hour):
    data = hour.read_bytes()
    one = only("-", stdin=io.BytesIO(data))
    one.read()
    before = resident()
    with open_audio(one) as reader:
        for _ in zip(range(100), reader, strict=False):
            pass
        assert resident() - before < 20 << 20
    assert len(data) > 50 << 20
