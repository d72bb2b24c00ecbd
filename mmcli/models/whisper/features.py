"""Audio → log-mel windows: the front end of Whisper (arXiv:2212.04356, section 2.2; openai/whisper `audio.py`)."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from mmcli.types import RATE

FFT = 400  # samples: 25 ms
HOP = 160  # samples: 10 ms

# Slaney's scale (Auditory Toolbox, 1998): linear below 1 kHz, 27 steps for a factor of 6.4 above.
LINEAR_STEP = 200 / 3
BREAK = 1000.0
LOG_STEP = np.log(6.4) / 27


def _hertz_to_mel(hertz: float) -> float:
    if hertz < BREAK:
        return hertz / LINEAR_STEP
    return BREAK / LINEAR_STEP + np.log(hertz / BREAK) / LOG_STEP


def _mel_to_hertz(mel: np.ndarray) -> np.ndarray:
    bend = BREAK / LINEAR_STEP
    return np.where(mel < bend, mel * LINEAR_STEP, BREAK * np.exp(LOG_STEP * (np.maximum(mel, bend) - bend)))


def mel_filters(mels: int) -> np.ndarray:
    """Triangles of equal area, evenly spaced on Slaney's scale from 0 to 8 kHz: float64 [mels, FFT // 2 + 1]."""
    edges = _mel_to_hertz(np.linspace(0.0, _hertz_to_mel(RATE / 2), mels + 2))
    bins = np.linspace(0.0, RATE / 2, FFT // 2 + 1)
    low, centre, high = (part[:, None] for part in (edges[:-2], edges[1:-1], edges[2:]))
    rise, fall = (bins - low) / (centre - low), (high - bins) / (high - centre)
    return np.maximum(0.0, np.minimum(rise, fall)) * (2.0 / (high - low))


@cache
def _tables(mels: int) -> tuple[Tensor, Tensor]:
    return torch.hann_window(FFT), torch.from_numpy(mel_filters(mels)).float()


def log_mel(audios: Sequence[np.ndarray], mels: int, frames: int, device: torch.device | None = None) -> Tensor:
    """Mono recordings at 16 kHz of at most frames × 10 ms each → float32 [B, mels, frames], filled up with silence.

    Where the `device` they are for is no CPU, it computes them. Raises ValueError for a recording that is longer than
    the window.
    """
    window, filters = _tables(mels)
    length = frames * HOP
    for audio in audios:
        if len(audio) > length:
            raise ValueError(f"a recording of {len(audio)} samples does not fit into a window of {length}")
    if device is not None and device.type != "cpu":
        samples = torch.zeros(len(audios), length)
        for row, audio in zip(samples, audios, strict=True):
            row[: len(audio)] = torch.from_numpy(np.ascontiguousarray(audio, dtype=np.float32))
        return _all_at_once(samples.to(device), window.to(device), filters.to(device))
    features = torch.empty(len(audios), mels, frames)
    for row, audio in enumerate(audios):
        _log_mel(torch.as_tensor(np.ascontiguousarray(audio, dtype=np.float32)), window, filters, features[row])
    return features


def _all_at_once(samples: Tensor, window: Tensor, filters: Tensor) -> Tensor:
    """Whole windows, [B, samples] → [B, mels, frames]."""
    padded = torch.nn.functional.pad(samples, (FFT // 2, FFT // 2), mode="reflect")
    spectrum = torch.stft(padded, FFT, HOP, window=window, center=False, return_complex=True)[..., :-1]
    power = torch.view_as_real(spectrum).square().sum(-1)
    logs = (filters @ power).clamp_(min=1e-10).log10_()
    floor = logs.amax(dim=(1, 2), keepdim=True) - 8.0
    return torch.maximum(logs, floor).add_(4.0).div_(4.0)


def _log_mel(samples: Tensor, window: Tensor, filters: Tensor, out: Tensor) -> None:
    """One row. Frames that cover only the silence behind the audio are all the same: they are not computed."""
    frames = out.shape[1]
    voiced = min(frames, (len(samples) + FFT // 2) // HOP + 1)
    needed = (voiced - 1) * HOP + FFT // 2  # a frame reaches half a transform beyond its own place
    padded = torch.zeros(min(needed, frames * HOP))
    padded[: len(samples)] = samples[: len(padded)]
    # The whole window is mirrored at its ends; behind a shorter recording the mirror image is silence either way.
    padded = torch.nn.functional.pad(padded[None], (FFT // 2, 0), mode="reflect")[0]
    tail = max(0, (frames - 1) * HOP + FFT - len(padded)) if voiced == frames else 0
    if tail:
        padded = torch.cat((padded, padded[-tail - 1 : -1].flip(0)))
    spectrum = torch.stft(padded, FFT, HOP, window=window, center=False, return_complex=True)[:, :voiced]
    power = torch.view_as_real(spectrum).square_().sum(-1)
    logs = (filters @ power).clamp_(min=1e-10).log10_()
    floor = logs.max() - 8.0  # silence is never the loudest
    out[:, :voiced] = torch.maximum(logs, floor)
    out[:, voiced:] = floor.clamp(min=-10.0)
    out.add_(4.0).div_(4.0)
