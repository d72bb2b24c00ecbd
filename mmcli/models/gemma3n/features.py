"""Audio → log-mel frames: the front end of Gemma 3n (transformers `feature_extraction_gemma3n.py`).

Each recording is read as it is read alone. The reference fills the recordings of a batch up to the longest before it
cuts frames, so that a shorter one gains frames there, up to four that begin in its last samples: what is read would
depend on the neighbours. Arithmetic is as precise as the reference's: up to the spectrum in float32, from there in
float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil, log2
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmcli.errors import ModelError
from mmcli.hub.fields import Fields, shown
from mmcli.hub.json_files import read_json
from mmcli.types import RATE

LONGEST = 480_000  # samples: 30 s
BLOCK = 128  # samples: silence fills a recording up to a multiple of this


@dataclass(frozen=True)
class MelSettings:
    """How log-mel frames are made. The defaults are what the published checkpoints say."""

    mels: int = 128
    frame: int = 512  # samples: 32 ms
    hop: int = 160  # samples: 10 ms
    transform: int = 1024  # samples
    lowest: float = 125.0  # Hz
    highest: float = 7600.0  # Hz
    emphasis: float = 0.97  # share of each sample that is taken from the next one
    delay: int = 0  # samples by which frames begin later
    gain: float = 1.0
    floor: float = 1e-5  # no mel magnitude counts as less
    mean: tuple[float, ...] | None = None  # of each bin's logarithms
    deviation: tuple[float, ...] | None = None

    def frames(self, samples: int) -> int:
        """F of a recording; one that is not longer than a frame has none. One sample more than a frame must be
        there."""
        filled = -(-samples // BLOCK) * BLOCK
        return max(0, (filled - self.frame - 1) // self.hop + 1)


PUBLISHED = MelSettings()


def log_mel(audios: Sequence[np.ndarray], settings: MelSettings = PUBLISHED) -> tuple[Tensor, Tensor]:
    """Mono recordings at 16 kHz → features float32 [B, F, mels], valid [B, F]; behind a shorter recording's frames are
    zeros.

    Raises ValueError for a recording longer than 30 s, which the reference would cut off.
    """
    longest = max(map(len, audios), default=0)
    if longest > LONGEST:
        raise ValueError(f"a recording of {longest} samples is longer than the {LONGEST} that can be read at once")
    counts = [settings.frames(len(audio)) for audio in audios]
    features = torch.zeros(len(audios), max(counts, default=0), settings.mels)
    for row, audio, count in zip(features, audios, counts, strict=True):
        row[:count] = torch.from_numpy(_log_mel(np.asarray(audio, dtype=np.float32), count, settings))
    return features, torch.arange(features.shape[1]) < torch.tensor(counts).view(-1, 1)


def _log_mel(audio: np.ndarray, count: int, settings: MelSettings) -> np.ndarray:
    """The `count` frames of one recording: [F, mels]."""
    window, filters = _tables(settings)
    if not count:
        return np.zeros((0, settings.mels), np.float32)
    samples = np.zeros((count - 1) * settings.hop + settings.frame + 1, np.float32)
    samples[: len(audio)] = audio[: len(samples)] * np.float32(settings.gain)
    # The reference does this frame by frame. Only a frame's first sample comes out otherwise; the window is 0 there.
    samples[1:] -= np.float32(settings.emphasis) * samples[:-1]
    samples = samples[settings.delay : len(samples) - 1 + settings.delay]
    frames = np.lib.stride_tricks.sliding_window_view(samples, settings.frame)[:: settings.hop]
    magnitudes = np.abs(np.fft.rfft(frames * window, n=settings.transform))
    logs = np.log(np.maximum(magnitudes @ filters, settings.floor))
    if settings.mean is not None:
        logs -= settings.mean
    if settings.deviation is not None:
        logs /= settings.deviation
    return logs.astype(np.float32)


@cache
def _tables(settings: MelSettings) -> tuple[np.ndarray, np.ndarray]:
    """The periodic Hann window, float32 [frame], and `mel_filters`."""
    turns = np.arange(settings.frame, dtype=np.float32) * np.float32(2 * np.pi) / np.float32(settings.frame)
    return np.float32(0.5) * (1 - np.cos(turns)), mel_filters(settings)


def mel_filters(settings: MelSettings) -> np.ndarray:
    """Triangles of height 1, evenly spaced on HTK's scale: float64 [transform // 2 + 1, mels]."""
    lowest, highest = (2595.0 * np.log10(1.0 + hertz / 700.0) for hertz in (settings.lowest, settings.highest))
    edges = 700.0 * (10.0 ** (np.linspace(lowest, highest, settings.mels + 2) / 2595.0) - 1.0)
    bins = np.arange(settings.transform // 2 + 1)[:, None] * (RATE / settings.transform)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    return np.maximum(0.0, np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)))


# -- what a checkpoint says --------------------------------------------------------------------------------------

ABSENT = {
    "frame_length_ms": 32.0, "hop_length_ms": 10.0, "min_frequency": PUBLISHED.lowest,
    "max_frequency": PUBLISHED.highest, "preemphasis": PUBLISHED.emphasis, "preemphasis_htk_flavor": True,
    "fft_overdrive": True, "input_scale_factor": PUBLISHED.gain, "mel_floor": PUBLISHED.floor,
}  # fmt: skip
MILLISECONDS = (1.0, 1000.0)
REQUIRED = {"sampling_rate": RATE, "padding_side": "right", "padding_value": 0.0, "dither": 0.0}


def read_settings(folder: Path, mels: int) -> MelSettings:
    """The settings of a checkpoint whose encoder takes `mels` bins. Raises ModelError where mmcli cannot follow them.

    They stand in processor_config.json under "feature_extractor", or among others in preprocessor_config.json; what is
    nowhere has the published value.
    """
    raw = _find(folder)
    for key, value in (REQUIRED | {"feature_size": mels}).items():
        if raw.get(key) not in (None, value):
            raise ModelError(f"{raw.where} sets {key} to {shown(raw.get(key))}; this model was trained with {value!r}")
    settings = _read(raw, mels)
    # Files also hold what follows from other settings; the reference reads past it, but would hardly mean another.
    for key, value in {
        "frame_length": settings.frame, "hop_length": settings.hop, "fft_length": settings.transform,
    }.items():  # fmt: skip
        if raw.get(key) not in (None, value):
            raise ModelError(
                f"{raw.where} sets {key} to {shown(raw.get(key))}, but by its other settings it is {value}"
            )
    return settings


def _find(folder: Path) -> Fields:
    path = folder / "processor_config.json"
    if path.is_file():
        raw = read_json(path).get("feature_extractor")
        if raw is not None:
            if not isinstance(raw, dict):
                raise ModelError(f"{path} holds no settings under feature_extractor")
            return Fields(raw, str(path), ABSENT)
    path = folder / "preprocessor_config.json"
    return Fields(read_json(path) if path.is_file() else {}, str(path), ABSENT)


def _read(raw: Fields, mels: int) -> MelSettings:
    def per_bin(key: str, low: float) -> tuple[float, ...] | None:
        if key not in raw:
            return None
        values = raw.get(key)
        for _ in range(2):  # it may be saved as a tensor [1, 1, mels]
            if isinstance(values, list) and len(values) == 1 and isinstance(values[0], list):
                values = values[0]
        return Fields({key: values}, raw.where).numbers(key, low, 1e6, longest=mels, length=mels)

    frame = round(RATE * raw.number("frame_length_ms", *MILLISECONDS) / 1000)
    emphasis = raw.number("preemphasis", 0, 1)
    lowest, highest = (raw.number(f"{end}_frequency", 0, RATE) for end in ("min", "max"))
    if lowest >= highest:
        raise raw.wrong("max_frequency", f"a number above min_frequency, {lowest:g}")
    return MelSettings(
        mels=mels,
        frame=frame,
        hop=round(RATE * raw.number("hop_length_ms", *MILLISECONDS) / 1000),
        transform=2 ** ceil(log2(frame)) * (2 if raw.flag("fft_overdrive") else 1),
        lowest=lowest,
        highest=highest,
        emphasis=emphasis,
        # HTK's emphasis leaves a frame where it is; the other takes the differences to each sample's successor.
        delay=int(emphasis > 0 and not raw.flag("preemphasis_htk_flavor")),
        gain=raw.number("input_scale_factor", -1e6, 1e6),
        floor=raw.positive("mel_floor"),
        mean=per_bin("per_bin_mean", -1e6),
        deviation=per_bin("per_bin_stddev", 1e-6),
    )
