"""A recording as the models want it: 16 kHz, one channel, float32, in blocks; every quirk of files is dealt with here.

PyAV carries FFmpeg and all its codecs, so nothing need be installed beside it. Times are those a player shows: 0 is
where the container begins, an audio track that begins later begins with silence, and where packets are missing silence
stands for them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from mmcli.errors import InputError
from mmcli.media.containers import Progress, audio_track, decoded, length, open_container, stated_length
from mmcli.media.limits import UNKNOWN_STREAM
from mmcli.media.mixing import BLOCK, RATE, TURNED, Alignment, Mixer, mixes
from mmcli.media.naming import empty, printable, trouble
from mmcli.media.sniff import describe_silent, is_audio
from mmcli.media.sources import Source

if TYPE_CHECKING:
    import av

_WARM_UP = 0.5  # seconds decoded before `start`: MP3 and Opus need up to 0.25 s of what came before
_GAP = 0.1  # seconds by which times may jump: less is the rounding of a container, or a sloppy clock
_LONGEST_GAP = 3600.0  # seconds of silence put in at most, in all: a longer leap is an error of the clock
_SHORTFALL = 0.5  # seconds that may be missing at the end before a recording is said to be cut short


@dataclass(frozen=True)
class AudioInfo:
    """What is known of a recording. `seconds` is its whole length as its container tells it, None where it does not."""

    name: str
    seconds: float | None
    notes: tuple[str, ...] = ()
    """What the user should know, each a phrase: damage, gaps, tracks left out. Complete once all has been read."""


def open_audio(
    source: Source,
    *,
    start: float = 0.0,
    duration: float | None = None,
    track: int | None = None,
    channels: bool = False,
) -> "AudioReader":
    """Open the recording, or the audio track of the video, in `source`; `start` and `duration` (seconds) take a part.

    `track` is the number of the audio track, from 1; None: the one that a player takes. With `channels` blocks may be
    [samples, channels] where they are not to be mixed by their places. Raises InputError for what cannot be read, is
    empty, is no recording or has no such audio track. Files are read from disk as they are decoded; pipes and addresses
    are read whole first.
    """
    name = printable(source.name)
    head = source.head()
    if not head:
        raise empty(source.name)
    silent = describe_silent(head)
    if silent is not None:
        raise InputError(f"{name} is {silent[0]}", silent[1])
    # What has no end is seldom a recording; what its first bytes identify may be long.
    file = source.open(stream_limit=None if is_audio(head) else UNKNOWN_STREAM)
    try:
        return AudioReader(file, name, start, duration, track, channels)
    except OSError as error:
        file.close()
        raise trouble(source.name, error) from error
    except BaseException:
        file.close()
        raise


def read_audio(
    source: Source, *, start: float = 0.0, duration: float | None = None, longest: float | None = None
) -> tuple[np.ndarray, AudioInfo]:
    """All of it at once: float32 [samples] at 16 kHz, and what is known of it. Raises as `open_audio` and reading.

    What is longer than `longest` seconds raises InputError, by its header where that tells.
    """
    with open_audio(source, start=start, duration=duration) as reader:
        expected = max((reader.info.seconds or 0.0) - start, 0.0)
        expected = min(expected, expected if duration is None else duration)
        limit = float("inf") if longest is None else longest * RATE
        samples = np.empty(int(min(expected, 3600.0) * RATE) + BLOCK, np.float32)  # a header may say anything
        filled = 0
        for block in reader if expected * RATE <= limit else ():
            if filled + len(block) > min(len(samples), limit):
                if filled + len(block) > limit:
                    expected = float("inf")
                    break
                # realloc: large arrays are moved by the kernel, not copied
                samples.resize(filled + len(block) + len(samples) // 4, refcheck=False)
            samples[filled : filled + len(block)] = block
            filled += len(block)
        if longest is not None and expected * RATE > limit:
            what = f"{printable(source.name)} is longer than {longest / 60:g} minutes, too long to be read at once"
            raise InputError(what, "Give a part of it, or write it down with mmcli transcribe")
        samples.resize(filled, refcheck=False)
        return samples, reader.info


class AudioReader:
    """Blocks of float32 samples at 16 kHz, one channel: [at most 16000] each. To be iterated once, and closed.

    `track` of `tracks` audio tracks is read.

    Iterating raises InputError where nothing can be decoded, where the recording holds no sample and where it ends
    before `start`. What is damaged is passed over; `info.notes` says so.
    """

    def __init__(
        self,
        file: BinaryIO,
        name: str,
        start: float,
        duration: float | None,
        track: int | None = None,
        channels: bool = False,
    ):
        self._file, self._name, self._wanted, self._separate = file, name, track, channels
        self._start, self._end = round(max(start, 0.0) * RATE), None
        if duration is not None:
            self._end = self._start + round(max(duration, 0.0) * RATE)
        self._notes: list[str] = []
        self._alignment = Alignment()
        self._progress = Progress()
        self._gaps, self._missing, self._leaps, self._numberless = 0, 0.0, 0, False
        self._container = open_container(file, name)
        try:
            self._stream = audio_track(self._container, name, self._notes, track)
            self.tracks = len(self._container.streams.audio)
            self.track = self._container.streams.audio.index(self._stream) + 1
            self._origin = (self._container.start_time or 0) / 1_000_000
            self._seconds = length(self._container, self._stream)
            self._stated = stated_length(self._container, self._stream, file)
        except BaseException:
            self._container.close()
            raise

    @property
    def info(self) -> AudioInfo:
        """What is known by now."""
        notes = [*self._notes, *self._progress.notes]
        if self._gaps:
            places = "one place" if self._gaps == 1 else f"{self._gaps} places"
            notes.append(f"{self._missing:.1f} s are missing in {places}, silence stands for them")
        if self._leaps:
            notes.append("its clock leaps on the way, times are counted by what is decoded")
        if self._numberless:
            notes.append("samples that are no finite numbers are taken for silence")
        if self._alignment.turned:
            notes.append(TURNED)
        return AudioInfo(self._name, self._seconds, tuple(notes))

    def __enter__(self) -> "AudioReader":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; may be called twice."""
        self._container.close()
        self._file.close()

    def __iter__(self) -> Iterator[np.ndarray]:
        if self._end is not None and self._end <= self._start:
            raise InputError(f"No audio of {self._name} is asked for: the duration is 0", "Ask for a longer part")
        position, given, ended = 0, False, False
        for position, block in self._timed_blocks():
            first = max(self._start - position, 0)
            last = len(block) if self._end is None else min(self._end - position, len(block))
            if first < last:
                given = True
                part = self._finite(block[first:last])
                yield part if self._separate else self._alignment.mix(part)
            position += len(block)
            if self._end is not None and position >= self._end:
                return
            ended = True
        if not given:
            raise self._nothing(position / RATE if ended else 0.0)

    # -- times ---------------------------------------------------------------------------------------------------

    def _timed_blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Blocks without a gap between them, each with the place of its first sample, in samples from the origin."""
        mixer: Mixer | None = None
        clock = 0.0  # where the next frame belongs if nothing is missing, in seconds
        shift = 0.0  # what is added to times since they jumped: streams glued together begin again at 0
        position = 0
        for time, frame in self._frames_from_start():
            at = clock if time is None else time + shift
            if mixer is None:
                position = round(min(at, self._start / RATE) * RATE)
                clock = position / RATE
            gap = at - clock
            if gap < -_GAP or gap > _LONGEST_GAP - self._missing:
                shift -= gap
                self._leaps += 1
            elif gap > (_GAP if mixer is not None else 0.0):
                if mixer is not None:
                    self._gaps, self._missing = self._gaps + 1, self._missing + gap
                    for block in mixer.end():
                        yield position, block
                        position += len(block)
                for block in _silence(round(at * RATE) - position):
                    yield position, block
                    position += len(block)
                mixer, clock = None, at
            if mixer is not None and not mixer.takes(frame):
                for block in mixer.end():
                    yield position, block
                    position += len(block)
                mixer = None
            mixer = mixer or Mixer(frame)
            for block in mixer.add(frame):
                yield position, block
                position += len(block)
            clock += frame.samples / frame.sample_rate
        for block in mixer.end() if mixer is not None else ():
            yield position, block
            position += len(block)
        if self._stated is not None and not shift and self._stated - clock > _SHORTFALL and mixer is not None:
            self._notes.append(f"it is cut short: {clock:.1f} of the {self._stated:.1f} s that it announces are there")

    def _frames_from_start(self) -> Iterator[tuple[float | None, "av.AudioFrame"]]:
        """Frames from a little before `start`, by seeking where that is sure to land before it, else from the first."""
        start = self._start / RATE
        for back in (_WARM_UP, 20.0) if start > 2 * _WARM_UP else ():
            if not self._seek(start - back):
                break
            frames = self._frames()
            first = next(frames, None)
            if first is not None and first[0] is not None and first[0] <= start:
                yield first
                yield from frames
                return
        if start > 2 * _WARM_UP:
            self._progress = Progress()
            self._rewind()
        yield from self._frames()

    def _seek(self, seconds: float) -> bool:
        import av

        try:
            place = (self._origin + max(seconds, 0.0)) / (self._stream.time_base or 1)
            self._container.seek(int(place), stream=self._stream)
        except av.error.FFmpegError:
            return False
        return True

    def _rewind(self) -> None:
        """Open it again: not every container that failed to seek can seek back."""
        self._container.close()
        self._file.seek(0)
        self._container = open_container(self._file, self._name)
        self._stream = audio_track(self._container, self._name, [], self._wanted)

    # -- decoding ------------------------------------------------------------------------------------------------

    def _frames(self) -> Iterator[tuple[float | None, "av.AudioFrame"]]:
        """All that can be decoded from here on, each frame with its time in seconds from the origin, if it has one."""
        for frames in decoded(self._container, self._stream, self._name, self._progress):
            for frame in frames:
                if not mixes(frame):
                    self._progress.damaged += 1
                elif frame.samples:
                    self._progress.useful = True
                    if frame.pts is None or frame.time_base is None:
                        yield None, frame
                    else:
                        yield float(frame.pts * frame.time_base) - self._origin, frame

    def _finite(self, block: np.ndarray) -> np.ndarray:
        if np.isfinite(block).all():
            return block
        self._numberless = True
        return np.nan_to_num(block, nan=0.0, posinf=0.0, neginf=0.0)

    def _nothing(self, ended: float) -> InputError:
        if ended > 0 and self._start:
            what = f"{self._name} ends after {ended:.1f} s, before the start at {self._start / RATE:.1f} s"
            return InputError(what, "Choose an earlier --start")
        if self._progress.damaged:
            what = f"{self._name} is damaged or cut short: no audio in it can be decoded"
            return InputError(what, "Get a fresh copy of the file")
        return InputError(f"{self._name} holds no audio: it is a recording of no length", "Record it again")


def _silence(samples: int) -> Iterator[np.ndarray]:
    while samples > 0:
        yield np.zeros(min(samples, BLOCK), np.float32)
        samples -= BLOCK
