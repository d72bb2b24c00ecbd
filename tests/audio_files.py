"""Recordings for tests: made with PyAV in every container, or by hand where it would write them too well."""

import io
import struct
import tempfile
import wave
from functools import cache
from pathlib import Path

import av
import numpy as np
from file_sources import refused, source

from mmcli.media.audio import RATE, AudioInfo, read_audio

KINDS = {  # ending → (encoder, rate, seconds that its frames may shift the audio: most say how much, these do not)
    "wav": ("pcm_s16le", 44100, 0.0),
    "aiff": ("pcm_s16be", 44100, 0.0),
    "au": ("pcm_s16be", 22050, 0.0),
    "flac": ("flac", 48000, 0.0),
    "mp3": ("libmp3lame", 44100, 0.0),
    "m4a": ("aac", 44100, 0.0),
    "aac": ("aac", 44100, 0.03),
    "opus": ("libopus", 48000, 0.0),
    "ogg": ("libopus", 48000, 0.0),
    "webm": ("libopus", 48000, 0.001),
    "mkv": ("flac", 32000, 0.001),
    "mov": ("aac", 48000, 0.0),
    "mp4": ("aac", 48000, 0.0),
    "ts": ("aac", 48000, 0.03),
}
CONTAINERS = {"aac": "adts", "ts": "mpegts", "m4a": "mp4"}


def load(path, **options) -> tuple[np.ndarray, AudioInfo]:
    samples, audio = read_audio(source(path), **options)
    assert samples.dtype == np.float32 and samples.ndim == 1
    return samples, audio


def fails(path, **options) -> str:
    return refused(load, path, **options)


def tone(frequency: float, seconds: float, rate: int, level: float = 0.5) -> np.ndarray:
    return level * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


def sweep(seconds: float, rate: int) -> np.ndarray:
    """Every moment sounds like no other: 300 Hz, and 100 Hz more each second."""
    time = np.arange(round(seconds * rate)) / rate
    return 0.5 * np.sin(2 * np.pi * (300 * time + 50 * time**2))


def save(path, channels, *, layout: str = "mono", video: bool = False, tracks: int = 1, **to) -> Path:
    """Encode float samples ([samples] for all channels, or [channels, samples]) as the path's ending says.

    `to` may name another codec, rate or container, the time at which to `begin`, a `hole` (from, to) to leave out, and
    a `leap` (at, by) of the clock, in seconds. Each further track is half as loud.
    """
    ending = Path(path).suffix[1:]
    codec, rate, _ = KINDS[ending]
    codec, rate = to.get("codec", codec), to.get("rate", rate)
    count = av.AudioLayout(layout).nb_channels
    channels = np.ascontiguousarray(np.broadcast_to(np.asarray(channels, np.float32), (count, np.shape(channels)[-1])))
    form = to.get("container", CONTAINERS.get(ending))
    with av.open(str(path), "w", format=form, options=to.get("options", {})) as container:
        stream = _add_video(container) if video else None
        for track in [container.add_stream(codec, rate=rate, layout=layout) for _ in range(tracks)]:
            for frame in _frames(channels, layout, **to | {"rate": rate}):
                container.mux(track.encode(frame))
            container.mux(track.encode(None))
            channels = channels * np.float32(0.5)
        if stream is not None:
            _mux_video(container, stream)
    return Path(path)


def save_tracks(path, audios, rate: int, languages) -> Path:
    """Audio tracks of different recordings in a container that takes FLAC, each with its language."""
    with av.open(str(path), "w") as container:
        tracks = [container.add_stream("flac", rate=rate, layout="mono") for _ in audios]
        for track, language in zip(tracks, languages, strict=True):
            track.metadata["language"] = language
        for track, samples in zip(tracks, audios, strict=True):
            for frame in _frames(np.asarray(samples, np.float32)[None], "mono", rate=rate):
                container.mux(track.encode(frame))
            container.mux(track.encode(None))
    return Path(path)


@cache
def swept(kind: str, seconds: float) -> bytes:
    """The bytes of a sweep in a container, encoded once."""
    with tempfile.TemporaryDirectory() as folder:
        return save(Path(folder) / f"a.{kind}", sweep(seconds, KINDS[kind][1])).read_bytes()


def save_sweep(path, seconds: float) -> Path:
    """A sweep in the container that the path's ending says."""
    Path(path).write_bytes(swept(Path(path).suffix[1:], seconds))
    return Path(path)


def save_silent_video(path) -> Path:
    """A video without audio."""
    with av.open(str(path), "w") as container:
        _mux_video(container, _add_video(container))
    return Path(path)


def _add_video(container):
    video = container.add_stream("mpeg4", rate=25)
    video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
    return video


def _mux_video(container, video):
    for index in range(25):
        frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 10 * index, np.uint8), format="rgb24")
        container.mux(video.encode(frame))
    container.mux(video.encode(None))


def _frames(channels, layout, *, rate, begin=0.0, hole=(0, 0), leap=(0, 0), **_):
    for at in range(0, channels.shape[1], 960):
        if hole[0] <= at / rate < hole[1]:
            continue
        piece = np.ascontiguousarray(channels[:, at : at + 960])
        frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout=layout)
        frame.sample_rate = rate
        frame.pts = at + round((begin + (leap[1] if at / rate >= leap[0] else 0)) * rate)
        yield frame


def wav_bytes(samples: np.ndarray, rate: int) -> bytes:
    """16-bit PCM of [samples] or [samples, channels], by the standard library."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.rint(np.asarray(samples) * 32767).astype("<i2").tobytes())
    return buffer.getvalue()


def float_wav_bytes(samples: np.ndarray, rate: int) -> bytes:
    data = np.asarray(samples, "<f4").tobytes()
    form = struct.pack("<HHIIHH", 3, 1, rate, rate * 4, 4, 32)
    chunks = b"fmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def level(samples: np.ndarray) -> float:
    """The amplitude of a steady tone, its edges left out."""
    return float(np.sqrt(2 * np.mean(np.square(samples[2000:-2000], dtype=np.float64))))


def pitch(samples: np.ndarray) -> float:
    """The strongest frequency, in Hz."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * RATE / len(samples))


def lag(samples: np.ndarray, expected: np.ndarray) -> float:
    """Seconds by which `samples` come later than `expected`."""
    length = min(len(samples), len(expected))
    spectrum = np.fft.rfft(samples[:length], 2 * length) * np.conj(np.fft.rfft(expected[:length], 2 * length))
    shift = int(np.argmax(np.fft.irfft(spectrum)))
    return (shift if shift < length else shift - 2 * length) / RATE
