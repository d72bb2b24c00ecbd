"""Frames of audio, whatever their rate and channels, at 16 kHz, and channels as one.

Where channels are told apart by loudspeakers (5.1 and the like) FFmpeg mixes them. Two channels, and several of which
nobody says what they are, are mixed here: one may be the other upside down, and their mean would be silence.
"""

from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from mmcli.types import RATE

if TYPE_CHECKING:
    import av

BLOCK = RATE  # samples of a full block
LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000  # others are damage, and would cost memory without end
MOST_CHANNELS = 64  # that FFmpeg mixes
MOST_SEPARATE = 8  # that are mixed here
OPPOSITE = 0.6  # correlation from which on channels are the same audio, or the same upside down
SLICE = RATE // 4  # samples in which that is measured

# FFmpeg's resampler with a longer filter than its default of 32 taps, measured with sines from 44.1 and 48 kHz:
#                             7.0 kHz  7.5 kHz | 8.1 kHz  8.3 kHz  8.5 kHz  9 kHz | CPU seconds an hour of audio
#   default                   -0.4 dB  -2.9 dB |  -13 dB   -19 dB   -26 dB  -62 dB | 1.0
#   64 taps, cutoff 0.97       0.0     -1.2    |  -23      -45      -91     -97    | 1.4
#   128 taps, cutoff 0.97      0.0     -0.1    |  -80     -103     -104    -100    | 2.4
#   torchaudio, its default   -1.8     -3.7    |   -7       -9      -11     -17    | 2 to 3
#   torchaudio, Kaiser 64      0.0     -3.0    | -101     -145     -146    -147    | 1.4 (44.1 kHz), 9 (48 kHz)
# What lies above 8 kHz folds back onto the consonants, so the 128 taps are worth their two seconds; torchaudio's best
# is no better for 16-bit audio and needs the whole recording at once. `rematrix_maxval` makes the shares of the
# channels add up to 1: without it the same voice on both sides of a stereo recording comes out 3 dB louder, past ±1.
_RESAMPLER = f"{RATE}:filter_size=128:cutoff=0.97:rematrix_maxval=1"


def mixes(frame: "av.AudioFrame") -> bool:
    """Whether a `Mixer` takes such a frame; what it does not take is damaged."""
    return fits(frame.sample_rate, frame.layout.nb_channels)


def fits(rate: int, channels: int) -> bool:
    """Whether a recording may have so many samples a second and channels."""
    return LOWEST_RATE <= rate <= HIGHEST_RATE and 1 <= channels <= MOST_CHANNELS


class Mixer:
    """Frames of one rate, sample type and channel layout → blocks at 16 kHz: [samples], or [samples, channels]."""

    def __init__(self, frame: "av.AudioFrame"):
        from av.filter import Graph

        self._kind = _kind(frame)
        self._graph = Graph()
        self._entry = self._graph.add_abuffer(
            sample_rate=frame.sample_rate,
            format=frame.format.name,
            layout=frame.layout.name,
            time_base=frame.time_base or Fraction(1, frame.sample_rate),
        )
        channels = frame.layout.nb_channels
        self._channels = channels if channels == 2 or (channels <= MOST_SEPARATE and not _has_places(frame)) else 1
        filters = [
            ("apad", "pad_dur=0.05"),
            ("aresample", _RESAMPLER),
            ("aformat", "sample_fmts=flt" if self._channels > 1 else "sample_fmts=flt:channel_layouts=mono"),
        ]
        if channels > MOST_SEPARATE and not _has_places(frame):  # FFmpeg mixes by places, which are not known here
            share = "+".join(f"{1 / channels:.6f}*c{index}" for index in range(channels))
            filters.insert(0, ("pan", f"mono|c0={share}"))
        self._exit = self._graph.add("abuffersink")
        chain = [self._graph.add(*each) for each in [*filters, ("asetnsamples", f"n={BLOCK}:p=0")]]
        for one, other in zip([self._entry, *chain], [*chain, self._exit], strict=True):
            one.link_to(other)
        self._graph.configure()
        self._taken, self._given, self._pending = 0, 0, 0

    def takes(self, frame: "av.AudioFrame") -> bool:
        """Whether the frame is of the kind of those before it; some streams change on the way."""
        return _kind(frame) == self._kind

    def add(self, frame: "av.AudioFrame") -> Iterator[np.ndarray]:
        self._entry.push(frame)
        self._taken += frame.samples
        self._pending += frame.samples
        if self._pending >= frame.sample_rate:  # asking after every frame costs more than decoding it
            self._pending = 0
            yield from self._blocks()

    def end(self) -> Iterator[np.ndarray]:
        """What is left, to the last sample: the padding behind it, without which nothing of a click comes, is cut."""
        self._entry.push(None)
        left = -(-self._taken * RATE // self._kind[0]) - self._given
        for block in self._blocks():
            if left > 0:
                yield block[:left]
            left -= len(block)

    def _blocks(self) -> Iterator[np.ndarray]:
        import av

        while True:
            try:
                frame = self._exit.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            assert isinstance(frame, av.AudioFrame)
            self._given += frame.samples
            block = frame.to_ndarray().reshape(-1)
            yield block if self._channels == 1 else block.reshape(-1, self._channels)


class Alignment:
    """Turns channels that are upside down. Which are is kept where the audio does not tell."""

    def __init__(self) -> None:
        self._signs = np.ones(1, np.float32)
        self.turned = False  # any so far

    def align(self, block: np.ndarray) -> np.ndarray:
        """[samples, channels] → the same, so that no channel takes another one away."""
        if len(self._signs) != block.shape[1]:
            self._signs = np.ones(block.shape[1], np.float32)
        return np.concatenate([self._turn(block[at : at + SLICE]) for at in range(0, len(block), SLICE)])

    def _turn(self, slice_: np.ndarray) -> np.ndarray:
        centred = slice_ - slice_.mean(axis=0)
        products = centred.T @ centred
        energy = products.diagonal()
        loudest = int(energy.argmax())
        alike = products[loudest] / np.sqrt(energy[loudest] * energy).clip(min=1e-12)
        for channel, value in enumerate(alike):
            if abs(value) > OPPOSITE:
                self._signs[channel] = self._signs[loudest] * (1.0 if value > 0 else -1.0)
        self._signs *= self._signs[0]  # the first stays as it is
        self.turned |= bool((self._signs < 0).any())
        return slice_ * self._signs

    def mix(self, block: np.ndarray) -> np.ndarray:
        """[samples, channels] or [samples] → [samples]."""
        return block if block.ndim == 1 else self.align(block).mean(axis=1)


TURNED = "its channels have opposite phase, so some are inverted before they are mixed"


def _kind(frame: "av.AudioFrame") -> tuple[int, str, str]:
    return frame.sample_rate, frame.format.name, frame.layout.name


def _has_places(frame: "av.AudioFrame") -> bool:
    """Whether the layout says what its channels are ("5.1"), and not only how many ("6 channels")."""
    return not frame.layout.name.endswith("channels") and "ambisonic" not in frame.layout.name
