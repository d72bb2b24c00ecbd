"""The reader: recordings are decoded and cut into windows of speech, ahead of the model."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from mmcli.batch.lanes import Lanes
from mmcli.batch.outcome import unforeseen
from mmcli.errors import InputError, MmcliError, raise_if_interrupted
from mmcli.speech.channels import Voices
from mmcli.speech.levels import levelled
from mmcli.speech.windows import Speech, Window

if TYPE_CHECKING:
    from mmcli.media.audio import AudioReader
    from mmcli.media.sources import Source
    from mmcli.speech.silero_vad import SileroVAD


@dataclass(frozen=True)
class Part:
    """Which part of each recording is transcribed."""

    start: float = 0.0  # seconds
    duration: float | None = None  # seconds from there on; None: up to the end
    track: int | None = None
    """The number of the audio track, from 1; None: the one that a player takes, or where nobody speaks in it, the first
    in which somebody does."""

    def length(self, seconds: float | None) -> float | None:
        """How long the part of a recording of that length is, in seconds, as far as it is known."""
        rest = None if seconds is None else max(seconds - self.start, 0.0)
        return min((known for known in (rest, self.duration) if known is not None), default=None)


@dataclass
class Recording:
    """What is known from reading one source so far. The reader alone writes it, and no more behind the recording's
    end."""

    source: "Source"
    speech: Speech | None = None  # None: nothing was decoded
    length: float | None = None  # seconds of audio in all, where it is known
    notes: tuple[str, ...] = ()
    error: InputError | None = None  # by which it ended
    identity: str | None = None  # of the file as it was read (`media/identity.py`)
    spent: float = 0.0  # seconds that decoding and finding speech took

    @property
    def windows(self) -> int:
        """How many there were so far."""
        return 0 if self.speech is None else self.speech.count

    @property
    def seconds(self) -> float:
        """Seconds of audio that were read so far."""
        return 0.0 if self.speech is None else self.speech.seconds

    @property
    def left_out(self) -> float:
        """Seconds of pauses that no window holds."""
        return 0.0 if self.speech is None else self.speech.left_out


Entry: TypeAlias = tuple[Recording, Window | None]  # None: the recording's end


class Reader:
    """Windows of many recordings, one after another; a block of audio is in memory, whatever their length.

    `detector` gives the network that finds speech, `lanes` the threads that it may use.
    """

    def __init__(self, part: Part, detector: "Callable[[], SileroVAD]", lanes: Lanes):
        self._part, self._detector, self._lanes = part, detector, lanes

    def read(self, sources: "Iterable[Source]") -> Iterator[Entry]:
        """The windows of each recording in the order of time, and then its end.

        A recording that cannot be read, or not to its end, ends with an error. Raises ModelError where speech cannot be
        found, and what is not about one recording, as memory that ran out.
        """
        for source in sources:
            recording = Recording(source)
            try:
                for window in self._windows(recording):
                    yield recording, window
            except (ArithmeticError, LookupError, OSError, TypeError, ValueError, MmcliError) as error:
                raise_if_interrupted(error)
                if isinstance(error, MmcliError) and not isinstance(error, InputError):
                    raise
                recording.error = error if isinstance(error, InputError) else unforeseen(source, error)
            yield recording, None

    def _windows(self, recording: Recording) -> Iterator[Window]:
        """Those of the audio track to read; where nobody speaks in the one that a player takes, of the next."""
        from mmcli.media.audio import open_audio
        from mmcli.media.identity import identity

        recording.identity = identity(recording.source)
        track = self._part.track
        others: list[int] | None = None if track is None else []  # tracks that may be read instead
        silent: list[int] = []
        while True:
            started = time.perf_counter()
            start, duration = self._part.start, self._part.duration
            with open_audio(recording.source, start=start, duration=duration, track=track, channels=True) as audio:
                if others is None:
                    others = [number for number in range(1, audio.tracks + 1) if number != audio.track]
                for window in self._windows_of(recording, audio):
                    recording.spent += time.perf_counter() - started
                    yield window
                    started = time.perf_counter()
            recording.spent += time.perf_counter() - started
            if recording.windows or not others:
                break
            silent.append(audio.track)
            track = others.pop(0)
        if silent and recording.windows:
            several = "track" if len(silent) == 1 else "tracks"
            recording.notes += (f"no speech was found in audio {several} {', '.join(map(str, silent))}",)

    def _windows_of(self, recording: Recording, audio: "AudioReader") -> Iterator[Window]:
        """The windows of one audio track."""
        recording.length = self._part.length(audio.info.seconds)
        self._lanes.leave_to_batches()
        detector = self._detector()
        voices = Voices(audio, detector)
        recording.speech = Speech(levelled(voices), detector, start=self._part.start)
        yield from recording.speech.windows()
        recording.notes = audio.info.notes + voices.notes
