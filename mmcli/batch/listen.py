"""Many recordings through one model that hears: their windows in batches, their texts in order as they come.

Three things go on at the same time: a thread reads and finds speech, a few hear batches, and the caller gets texts.
"""

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mmcli.batch.prefetch import prefetch
from mmcli.batch.runner import Outcome
from mmcli.engine.cpu import allowed_cores
from mmcli.errors import InputError, MmcliError
from mmcli.output.schema import Record
from mmcli.speech.channels import Voices
from mmcli.speech.levels import levelled
from mmcli.speech.windows import RATE, Speech, Window, halves, is_long
from mmcli.tasks.transcribe import (
    Passage,
    TranscribeRequest,
    better,
    notes_of,
    passage,
    repeats,
)
from mmcli.types import Segment, WindowText

if TYPE_CHECKING:
    from mmcli.media.sources import Source
    from mmcli.models.loaded import Loaded
    from mmcli.speech.silero_vad import SileroVAD

BATCH_ON_GPU = 16
BATCH_ON_CPU = 8
BATCH_OF_LARGE_ON_CPU = 2
LARGE = 200_000_000  # parameters
FIRST_BATCH = 2  # windows, where someone waits for the first words
USUAL_WINDOW = 27.0  # seconds of sound that a window of a long recording takes up, as a rule

# Batches heard at the same time, each by its share of the threads: a small model's operations are too short to be
# worth dividing among threads, but batches can be.
MOST_LANES = 4

SHORTEST_REST = 0.5  # seconds at a window's end that a model may leave unheard


@dataclass(frozen=True)
class Heard:
    """Some more of a recording."""

    source: "Source"
    segments: list[Segment]
    reached: float  # seconds of sound that were listened to so far, pauses included
    length: float | None  # seconds of sound in all, where it is known


@dataclass
class _Recording:
    """One source on its way to a record."""

    source: "Source"
    start: float
    speech: Speech | None = None
    length: float | None = None
    passages: list[Passage] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    error: InputError | None = None
    identity: str | None = None  # of the file as it was read (`media/identity.py`)
    read: float = 0.0  # seconds that decoding and finding speech took
    model: float = 0.0  # seconds of its share in the batches


_Batch = list[tuple[_Recording, Window | None]]  # None: the recording's end


class _Lanes:
    """Room for `count` batches at the same time, each with its share of PyTorch's threads."""

    def __init__(self, count: int, threads: int):
        self.count, self._threads = count, threads
        self._free = threading.Semaphore(count)

    @classmethod
    def of(cls, loaded: "Loaded", most: int, threads: int) -> "_Lanes":
        """One lane where a batch occupies the device, or where two would be too much for the memory."""
        alone = loaded.device.type != "cpu" or is_large(loaded)
        return cls(1 if alone else max(1, min(most, threads)), threads)

    @contextmanager
    def one(self, windows: int) -> Iterator[None]:
        """A lane for the calling thread. A single window is all that is left: it gets every thread."""
        import torch

        with self._free:
            share = self._threads if windows == 1 else max(1, self._threads // self.count)
            if torch.get_num_threads() != share:
                torch.set_num_threads(share)  # of this thread
            yield


class Listener:
    """One run over recordings.

    Iterating gives, source by source, `Heard` as its windows are done and then its `Outcome`. A few batches of windows
    and a block of sound are in memory, whatever the recordings' length. `load` is called once, in a thread of its own,
    when the first speech was found. Raises ModelError where the model cannot be loaded or run.
    """

    def __init__(
        self,
        request: TranscribeRequest,
        load: "Callable[[], Loaded]",
        *,
        model: str,
        revision: str | None = None,
        batch_size: int | None = None,
        start: float = 0.0,
        duration: float | None = None,
        track: int | None = None,
        first_soon: bool = False,
        lanes: int | None = None,
    ):
        """`track` is the number of the sound track to hear, from 1; None: the one that a player takes, or where nobody
        speaks in it, the first in which somebody does. `first_soon` makes the first batch a small one, for those who
        watch. `lanes`: how many batches are heard at the same time; None: as many as pay on the model's device.
        """
        self._request, self._load = request, load
        self._model, self._revision = model, revision
        self._batch_size = batch_size
        self._start, self._duration, self._track = start, duration, track
        self._first = first_soon
        self._most_lanes = lanes or min(MOST_LANES, allowed_cores())
        self._threads: int | None = None  # that PyTorch would use
        self._loading: Future[tuple[Loaded, _Lanes]] | None = None
        self._detector: SileroVAD | None = None

    def run(self, sources: "Iterable[Source]") -> Iterator[Heard | Outcome]:
        """Listen to all of them."""
        lanes = self._most_lanes
        for batch, done in prefetch(self._listen, self._batches(sources), depth=lanes + 1, threads=lanes):
            yield from self._finish(batch, done.result())

    def _batches(self, sources: "Iterable[Source]") -> Iterator[_Batch]:
        """Windows and ends of recordings, as many as go through the model together."""
        batch: _Batch = []
        waiting = 0
        for recording, window in self._windows(sources):
            if window is not None and self._loading is None:
                self._loading = Future()
                threading.Thread(target=self._start_model, daemon=True, name="load").start()
            batch.append((recording, window))
            waiting += window is not None
            if waiting == 0:  # nothing to compute before this end
                yield batch
                batch = []
            elif waiting >= self._size(recording):
                yield batch
                batch, waiting, self._first = [], 0, False
        yield from shares(batch, self._most_lanes)  # nothing follows that could keep the other lanes busy

    def _size(self, recording: _Recording) -> int:
        """Windows in a batch. While the model is still loading, that is guessed; `_transcribe` knows better then."""
        if self._first:
            return min(self._batch_size or FIRST_BATCH, FIRST_BATCH)
        loaded = self._loading.result()[0] if self._loading.done() else None
        size = self._batch_size or (BATCH_ON_CPU if loaded is None else default_batch_size(loaded))
        return size if recording.length is None else even(size, recording.length, self._most_lanes)

    def _start_model(self) -> None:
        try:
            loaded = self._load()
            self._request.require(loaded, self._model)
            self._revision = loaded.checkpoint.revision
            self._loading.set_result((loaded, _Lanes.of(loaded, self._most_lanes, self._threads)))
        except BaseException as error:  # raised again where the model is needed
            self._loading.set_exception(error)

    def _detector_here(self) -> "SileroVAD":
        if self._detector is None:
            from mmcli.speech.silero_vad import load_silero_vad

            self._detector = load_silero_vad()
        return self._detector

    # -- reading -------------------------------------------------------------------------------------------------

    def _spare_threads(self) -> None:
        """Finding speech is so little work at a time that more threads than this one only hinder it."""
        if self._threads is None:
            import torch

            self._threads = torch.get_num_threads()
            torch.set_num_threads(1)

    def _windows(self, sources: "Iterable[Source]") -> Iterator[tuple[_Recording, Window | None]]:
        for source in sources:
            recording = _Recording(source, self._start)
            try:
                yield from self._read(recording)
            except InputError as error:
                recording.error = error
            except MmcliError:
                raise
            except (ArithmeticError, LookupError, OSError, TypeError, ValueError) as error:  # this input's failure only
                what = f"{source.name} cannot be read ({type(error).__name__}: {error})"
                recording.error = InputError(what, "Try --debug")
                recording.error.__cause__ = error
            yield recording, None

    def _read(self, recording: _Recording) -> Iterator[tuple[_Recording, Window]]:
        """The windows of the sound track to hear; where nobody speaks in the one a player takes, of the next."""
        from mmcli.media.identity import identity

        recording.identity = identity(recording.source)
        silent: list[int] = []
        track, tracks = self._track, [self._track]
        while True:
            yield from self._read_track(recording, track, tracks)
            if recording.speech.count or self._track is not None or len(silent) + 1 == len(tracks):
                break
            silent.append(tracks[0] if track is None else track)
            track = next(number for number in tracks[1:] if number not in silent)
        if silent and recording.speech.count:
            several = "track" if len(silent) == 1 else "tracks"
            recording.notes += (f"no speech was found in sound {several} {', '.join(map(str, silent))}",)

    def _read_track(
        self, recording: _Recording, track: int | None, tracks: list[int | None]
    ) -> Iterator[tuple[_Recording, Window]]:
        """The windows of a sound track, None for the one a player takes; `tracks` is told all, that one first."""
        from mmcli.media.audio import open_sound

        started = time.perf_counter()
        options = {"start": self._start, "duration": self._duration, "track": track, "channels": True}
        with open_sound(recording.source, **options) as reader:
            if track is None:
                tracks[:] = [reader.track, *(n for n in range(1, reader.tracks + 1) if n != reader.track)]
            recording.length = _part(reader.sound.seconds, self._start, self._duration)
            self._spare_threads()
            detector = self._detector_here()
            voices = Voices(reader, detector)
            recording.speech = speech = Speech(levelled(voices), detector, start=self._start)
            for window in speech.windows():
                recording.read += time.perf_counter() - started
                yield recording, window
                started = time.perf_counter()
            recording.notes = reader.sound.notes + voices.notes
        recording.read += time.perf_counter() - started

    # -- hearing -------------------------------------------------------------------------------------------------

    def _listen(self, batch: _Batch) -> tuple[list[list[Passage]], float]:
        """What was said in each window of a batch, and the seconds of the whole machine that a window took."""
        windows = [window for _, window in batch if window is not None]
        if not windows:
            return [], 0.0
        loaded, lanes = self._loading.result()
        with lanes.one(len(windows)):
            started = time.perf_counter()
            found = self._hear(loaded, windows)
            return found, (time.perf_counter() - started) / lanes.count / len(windows)

    def _finish(self, batch: _Batch, heard: tuple[list[list[Passage]], float]) -> Iterator[Heard | Outcome]:
        """Hand out what came of a batch, ends in their places."""
        passages, seconds = iter(heard[0]), heard[1]
        for recording, window in batch:
            if window is None:
                yield self._outcome(recording)
                continue
            recording.model += seconds
            found = next(passages)
            recording.passages += found
            segments = [segment for one in found for segment in one.segments()]
            yield Heard(recording.source, segments, window.end - recording.start, recording.length)

    def _hear(self, loaded: "Loaded", windows: list[Window]) -> list[list[Passage]]:
        """What was said in each window; what the model left unheard at its end is listened to again.

        Where a text repeats itself, the halves of its window are heard too: a model that only turns in circles does so
        less in a shorter one, and what is really said over and over is found there as well.
        """
        if not windows:
            return []
        whole = [passage(window, text) for window, text in zip(windows, self._transcribe(loaded, windows), strict=True)]
        parts = [
            halves(window) if is_long(window) and repeats(one.text) else self._rest(window, one.text)
            for window, one in zip(windows, whole, strict=True)
        ]
        heard = iter(self._hear(loaded, [part for own in parts for part in own]))
        found = []
        for one, own in zip(whole, parts, strict=True):
            again = [each for _ in own for each in next(heard)]
            found.append(better(one, again) if repeats(one.text) else [one, *again])
        return found

    def _rest(self, window: Window, text: WindowText) -> list[Window]:
        """Windows of the speech behind the place where a model says that more follows."""
        heard = round(text.heard_until * RATE)
        if heard <= 0 or len(window.sound) - heard < SHORTEST_REST * RATE:
            return []
        return list(Speech([window.sound[heard:]], self._detector_here(), start=window.start + heard / RATE).windows())

    def _transcribe(self, loaded: "Loaded", windows: list[Window]) -> list[WindowText]:
        from mmcli.tasks.answer import in_words

        size = self._batch_size or default_batch_size(loaded)
        texts: dict[int, WindowText] = {}
        # Of a window that can be halved a text that turns in circles need not be tried again as it is.
        options = self._request.options()
        for chosen, places in (
            (replace(options, compression_ratio_limit=None), [n for n, one in enumerate(windows) if is_long(one)]),
            (options, [n for n, one in enumerate(windows) if not is_long(one)]),
        ):
            for first in range(0, len(places), size):
                batch = places[first : first + size]
                sounds = [windows[at].sound for at in batch]
                try:
                    answers = loaded.family.transcribe(loaded, sounds, chosen)
                except RuntimeError as error:
                    raise in_words(error, len(batch), "window") from error
                texts.update(zip(batch, answers, strict=True))
        return [texts[at] for at in range(len(windows))]

    def _outcome(self, recording: _Recording) -> Outcome:
        from mmcli.tasks.result import transcript_record
        from mmcli.tasks.settings import audio_settings

        source, request, speech = recording.source, self._request, recording.speech
        loaded = self._loading.result()[0] if self._loading else None
        settings = audio_settings(request, loaded, start=self._start, duration=self._duration, track=self._track)
        model, revision = self._model, self._revision
        begun = Record(task=request.task, source=source.name, model=model, revision=revision, settings=settings)
        if recording.error is not None:
            return Outcome(source, replace(begun, error=str(recording.error)), recording.error)
        spent = recording.read + recording.model
        timings = {
            "read": recording.read,
            "model": recording.model,
            "real_time_factor": spent / speech.seconds if speech.seconds else 0.0,
            "windows": speech.count,
            "left_out": speech.left_out,
        }
        silent = () if speech.count else ("no speech was found in it",)
        record = transcript_record(
            replace(begun, seconds=recording.start + speech.seconds, timings=timings),
            request,
            recording.passages,
            loaded,
            notes=(*recording.notes, *notes_of(recording.passages), *silent),
            identity=recording.identity,
        )
        return Outcome(source, record)


def default_batch_size(loaded: "Loaded") -> int:
    """How many windows go through the model together when nobody says."""
    if loaded.device.type != "cpu":
        return BATCH_ON_GPU
    return BATCH_OF_LARGE_ON_CPU if is_large(loaded) else BATCH_ON_CPU


def is_large(loaded: "Loaded") -> bool:
    """Whether a model has so many parameters that a CPU is busy with few windows."""
    return sum(parameter.numel() for parameter in loaded.model.parameters()) > LARGE


def even(size: int, seconds: float, lanes: int) -> int:
    """At most `size` windows a batch, and so many that the lanes end a recording of that length together."""
    windows = math.ceil(seconds / USUAL_WINDOW)
    if windows <= size:
        return size  # more recordings may follow and fill it
    rounds = math.ceil(windows / (lanes * size))
    return min(size, math.ceil(windows / (lanes * rounds)))


def shares(batch: _Batch, lanes: int) -> Iterator[_Batch]:
    """A batch in at most `lanes` parts with about as many windows each."""
    windows = sum(window is not None for _, window in batch)
    most = max(1, math.ceil(windows / lanes))
    part: _Batch = []
    for entry in batch:
        if entry[1] is not None and sum(window is not None for _, window in part) == most:
            yield part
            part = []
        part.append(entry)
    if part:
        yield part


def _part(seconds: float | None, start: float, duration: float | None) -> float | None:
    """How long the part from `start` is, as far as that is known."""
    rest = None if seconds is None else max(seconds - start, 0.0)
    return min((known for known in (rest, duration) if known is not None), default=None)
