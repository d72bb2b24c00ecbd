"""Soft speech made as loud as a detector of speech and a model need it; what is loud enough stays as it is.

Silero's detector finds speech whose peaks are below about -43 dB in parts, and none below -55 dB, whatever the noise.
"""

from collections.abc import Iterable, Iterator

import numpy as np

FRAME = 512  # samples of which one peak is taken: 32 ms at 16 kHz
LOUD_ENOUGH = 0.01  # peak: -40 dB, to which softer places are lifted
MOST = 1000.0  # 60 dB: the last bit of 16 is at -90 dB
REACH = 12  # frames before and behind that count as beside a place: 0.4 s, longer than pauses inside a sentence
SMOOTH = 6  # frames before and behind over which the gain changes
MARGIN = (REACH + SMOOTH) * FRAME
BLOCK = 500 * FRAME  # samples that are worked on together: 16 s
OFFSET = 0.1  # a mean that is more than this share of the audio's own deviation is an offset of the recorder's


def levelled(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The same samples (float32 at 16 kHz, in blocks of any length), without an offset and with soft places lifted."""
    held = np.zeros(0, np.float32)  # what was given out last, as far as it reaches, and all that was not
    before = 0  # samples of it that were given out
    waiting: list[np.ndarray] = []
    size = 0
    for block in blocks:
        waiting.append(block)
        size += len(block)
        if len(held) - before + size >= BLOCK + MARGIN:
            held, waiting, size = np.concatenate((held, *waiting)), [], 0
            while len(held) - before >= BLOCK + MARGIN:
                yield lifted(held[: before + BLOCK + MARGIN])[before : before + BLOCK]
                held, before = held[before + BLOCK - MARGIN :], MARGIN
            held = held.copy()
    held = np.concatenate((held, *waiting))
    if len(held) > before:
        yield lifted(held)[before:]


def lifted(audio: np.ndarray, peak: float = LOUD_ENOUGH) -> np.ndarray:
    """Float32 [samples] with what is softer than `peak` lifted to it."""
    mean = float(audio.mean(dtype=np.float64))
    if abs(mean) > OFFSET * float(audio.std(dtype=np.float64)):
        audio = audio - np.float32(mean)
    frames = np.pad(np.abs(audio), (0, -len(audio) % FRAME)).reshape(-1, FRAME)
    gain = np.clip(peak / np.maximum(_highest(frames.max(axis=1), REACH), 1e-9), 1.0, MOST)
    if gain.max() == 1.0:
        return audio
    gain = np.convolve(np.pad(gain, SMOOTH, mode="edge"), np.full(2 * SMOOTH + 1, 1 / (2 * SMOOTH + 1)), mode="valid")
    places = np.arange(len(gain)) * FRAME + FRAME / 2
    return audio * np.interp(np.arange(len(audio)), places, gain).astype(np.float32)


def _highest(values: np.ndarray, reach: int) -> np.ndarray:
    """The highest value within `reach` places of each."""
    padded = np.pad(values, reach, mode="edge")
    return np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1).max(axis=1)
