"""Speech in a recording: where it is, and windows of it that a model can read, cut at pauses.

Everything works on the stream: at most one window of audio and one block of the reader are in memory.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mmcli.media.mixing import RATE
from mmcli.speech.levels import lifted
from mmcli.speech.pauses import quietest, quietest_frame

if TYPE_CHECKING:
    from mmcli.speech.silero_vad import SileroVAD

FRAME = 512  # samples: 32 ms, one probability of speech each
CONTEXT = 64  # samples that the detector sees before a frame
DETECTABLE = 0.03  # peak to which softer audio is lifted for the detector: after loud speech it misses soft one
BLOCK = 512  # frames that go through the detector together: 16 s

# Hysteresis: speech begins at START, and ends where the probability falls below STOP and does not come back to START
# within PAUSE frames. A stretch is taken with PAD frames on both sides, as far as no other stretch claims them.
START, STOP = 0.4, 0.25
PAUSE = 5
PAD = 10
SHORTEST = 2  # frames: what is shorter is a click

WINDOW = 30.0  # seconds
SHORTEST_HALVED = 4.0  # seconds of a window that is transcribed in halves
LONGEST_GAP = 93  # frames (3 s): a longer pause ends a window
REST = 125  # frames (4 s): how much of a window may be given up to cut it at a better pause
SMOOTH = 5  # frames over which loudness is averaged to find the quietest place


@dataclass(frozen=True)
class Window:
    """A piece of a recording with speech in it."""

    start: float  # seconds in the recording
    audio: np.ndarray  # float32 [samples] at 16 kHz, at most 30 s

    @property
    def end(self) -> float:
        return self.start + len(self.audio) / RATE


def is_long(window: Window) -> bool:
    """Whether a window can be transcribed in halves."""
    return len(window.audio) >= SHORTEST_HALVED * RATE


def halves(window: Window) -> list[Window]:
    """A window in two, cut at the quietest place of its middle half."""
    quarter = len(window.audio) // 4
    at = quietest(window.audio, quarter, 3 * quarter)
    return [Window(window.start, window.audio[:at]), Window(window.start + at / RATE, window.audio[at:])]


@dataclass
class Cutter:
    """Probabilities and loudness of frames → spans of frames, (first, end), of at most `limit` frames.

    Spans rise and never overlap. Between them lie pauses only: every frame of speech is in exactly one span.
    """

    limit: int
    frame: int = 0  # the next one
    floor: int = 0  # nothing before this frame is to be transcribed again
    quiet_since: int | None = None  # the first frame of what may become a pause
    start: int | None = None  # of the stretch of speech that is open
    closed: list[tuple[int, int]] = field(default_factory=list)  # stretches of the window to come
    loudness: list[float] = field(default_factory=list)  # of the frames from `floor` on

    def feed(self, probability: float, loudness: float) -> Iterator[tuple[int, int]]:
        """One more frame; yields the spans that are certain now."""
        self.loudness.append(loudness)
        now, self.frame = self.frame, self.frame + 1
        if probability >= START:
            self.quiet_since = None
            if self.start is None:
                self.start = now
        elif self.start is not None:
            if probability < STOP and self.quiet_since is None:
                self.quiet_since = now
            if self.quiet_since is not None and self.frame - self.quiet_since >= PAUSE:
                self._close(self.quiet_since)
        if self.start is not None:
            yield from self._fit()
        elif self.closed and self.frame - self.closed[-1][1] > LONGEST_GAP:
            yield self._take(len(self.closed), self.closed[-1][1] + PAD)
        elif not self.closed and self.frame - self.floor > LONGEST_GAP:
            self._forget(self.frame - PAD)

    def end(self) -> Iterator[tuple[int, int]]:
        """The recording ends here; yields the last span."""
        if self.start is not None:
            self._close(self.frame if self.quiet_since is None else self.quiet_since)
        if self.closed:
            yield self._take(len(self.closed), min(self.frame, self.closed[-1][1] + PAD))

    @property
    def needed_from(self) -> int:
        """The first frame that a later span may hold."""
        return max(self.floor, (self.closed[0][0] if self.closed else self._open_from()) - PAD)

    def _open_from(self) -> int:
        return self.frame if self.start is None else self.start

    def _close(self, end: int) -> None:
        """The open stretch ends before frame `end`."""
        assert self.start is not None
        if end - self.start >= SHORTEST:
            self.closed.append((self.start, end))
        self.start = self.quiet_since = None

    def _fit(self) -> Iterator[tuple[int, int]]:
        """Make room for the open stretch: with its padding the window must stay within the limit."""
        while self.frame + PAD - self.needed_from >= self.limit:
            if self.closed:
                kept = self._best_pause()
                before, after = self.closed[kept - 1][1], self._start_of(kept)
                yield self._take(kept, before + min(PAD, (after - before) // 2))
            else:
                first = self.needed_from
                cut = self._quietest(first + self.limit // 2, self.frame)
                self.start = cut
                if self.quiet_since is not None and self.quiet_since < cut:
                    self.quiet_since = cut
                self._forget(cut)
                yield first, cut

    def _start_of(self, index: int) -> int:
        return self.closed[index][0] if index < len(self.closed) else self._open_from()

    def _best_pause(self) -> int:
        """How many of the closed stretches to take: up to the longest pause near the window's end."""
        last = self.closed[-1][1]
        choices = [n for n in range(1, len(self.closed) + 1) if self.closed[n - 1][1] >= last - REST]
        return max(choices, key=lambda n: (self._start_of(n) - self.closed[n - 1][1], n))

    def _quietest(self, first: int, end: int) -> int:
        """The frame in the middle of the quietest place between two frames."""
        levels = np.asarray(self.loudness[first - self.floor : end - self.floor])
        return first + quietest_frame(levels, SMOOTH)

    def _take(self, count: int, end: int) -> tuple[int, int]:
        span = self.needed_from, end
        del self.closed[:count]
        self._forget(end)
        return span

    def _forget(self, frame: int) -> None:
        frame = max(frame, self.floor)
        del self.loudness[: frame - self.floor]
        self.floor = frame


class Speech:
    """The windows of one recording, and how much of it they left out.

    `windows` may be iterated once; `seconds` and `spoken` grow meanwhile.
    """

    def __init__(self, blocks: Iterable[np.ndarray], detector: "SileroVAD", *, start: float = 0.0):
        """`blocks` are float32 mono at 16 kHz, of any length; the first begins at `start` seconds of the recording."""
        self._blocks = blocks
        self._detector = detector
        self._start = start
        self.samples = 0  # read
        self.kept = 0  # samples in windows
        self.count = 0  # windows

    @property
    def seconds(self) -> float:
        """Seconds read so far."""
        return self.samples / RATE

    @property
    def left_out(self) -> float:
        """Seconds of pauses that no window holds; final when all windows were taken."""
        return (self.samples - self.kept) / RATE

    def windows(self) -> Iterator[Window]:
        """Windows in the order of time, each of at most 30 s; none of silence."""
        cutter = Cutter(int(WINDOW * RATE) // FRAME)
        kept = np.zeros(0, np.float32)  # audio that a span may still need; its first sample is frame `first`
        first = 0
        for audio, probabilities, loudness in self._detected():
            kept = np.concatenate((kept, audio))
            for probability, level in zip(probabilities, loudness, strict=True):
                for span in cutter.feed(probability, level):
                    yield self._window(kept, first, span)
            done = cutter.needed_from - first
            kept, first = kept[done * FRAME :].copy(), first + done
        for span in cutter.end():
            yield self._window(kept, first, span)

    def _window(self, kept: np.ndarray, first: int, span: tuple[int, int]) -> Window:
        audio = kept[(span[0] - first) * FRAME : (span[1] - first) * FRAME].copy()
        self.kept += len(audio)
        self.count += 1
        return Window(self._start + span[0] * FRAME / RATE, audio)

    def _detected(self) -> Iterator[tuple[np.ndarray, list[float], list[float]]]:
        """Pieces of whole frames (the very last filled up for the detector) with what is known of each frame."""
        import torch

        state = None
        before = np.zeros(CONTEXT, np.float32)
        for piece in _pieces(self._blocks, BLOCK * FRAME):
            self.samples += len(piece)
            frames, before = framed(piece, before)
            with torch.inference_mode():
                probabilities, state = self._detector(torch.from_numpy(frames), state)
            whole = np.pad(piece, (0, -len(piece) % FRAME))
            loudness = np.square(whole.reshape(-1, FRAME), dtype=np.float64).mean(axis=1)  # of any float32
            yield piece, probabilities.tolist(), loudness.tolist()


def framed(piece: np.ndarray, before: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Audio as the detector takes it [frames, CONTEXT + FRAME], and what it sees `before` the next piece."""
    asked = lifted(np.pad(piece, (0, -len(piece) % FRAME)), DETECTABLE)
    frames = np.lib.stride_tricks.sliding_window_view(np.concatenate((before, asked)), CONTEXT + FRAME)[::FRAME]
    return frames.copy(), asked[-CONTEXT:]


def _pieces(blocks: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The same samples in pieces of exactly `size`, but for the last."""
    waiting: list[np.ndarray] = []
    held = 0
    for block in blocks:
        waiting.append(block)
        held += len(block)
        if held < size:
            continue
        joined = np.concatenate(waiting)
        whole = held - held % size
        yield from (joined[at : at + size] for at in range(0, whole, size))
        waiting, held = [joined[whole:].copy()], held % size
    if held:
        yield np.concatenate(waiting)
