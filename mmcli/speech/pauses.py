"""A long recording as several short ones, cut where it is quiet. Nothing is left out."""

import math

import numpy as np

from mmcli.media.mixing import RATE

FRAME = 512  # samples: 32 ms, of which one loudness is taken
PAUSE = 8  # frames over which loudness is averaged: a quarter of a second, a pause between words
REACH = 4.0  # seconds before and after the even place where a cut may be made


def cut(samples: np.ndarray, longest: float) -> list[np.ndarray]:
    """Float32 [samples] at 16 kHz → parts of at most `longest` seconds, which is 4 × REACH or more.

    Joined they are the whole. None is a short rest, which would be transcribed without its context.
    """
    limit, reach = int(longest * RATE), int(REACH * RATE)
    parts = []
    while len(samples) > limit:
        even = len(samples) // math.ceil(len(samples) / (limit - reach))
        at = quietest(samples, even - reach, even + reach)
        parts.append(samples[:at])
        samples = samples[at:]
    return [*parts, samples]


def quietest(samples: np.ndarray, first: int, last: int) -> int:
    """The middle of the quietest quarter of a second between two places."""
    frames = (last - first) // FRAME
    loudness = np.square(samples[first : first + frames * FRAME].reshape(frames, FRAME), dtype=np.float64).mean(axis=1)
    return first + quietest_frame(loudness, PAUSE) * FRAME


def quietest_frame(loudness: np.ndarray, width: int) -> int:
    """The middle of the `width` neighbours that are the quietest together, of frames' loudness [F]."""
    width = min(width, len(loudness))
    return int(np.convolve(loudness, np.ones(width), mode="valid").argmin()) + width // 2
