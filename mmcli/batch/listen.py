"""Many recordings through one model that hears: their windows in batches, their texts in order as they come."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mmcli.batch.runner import Outcome
from mmcli.batch.speech import RATE, Speech, Window
from mmcli.errors import InputError, MmcliError
from mmcli.tasks.transcribe import Passage, TranscribeRequest, joined, main_language, notes_of, passage

if TYPE_CHECKING:
    from mmcli.hub.load import Loaded
    from mmcli.layers.silero_vad import SileroVAD
    from mmcli.media.sources import Source

BATCH_ON_GPU = 16
BATCH_ON_CPU = 8
BATCH_OF_LARGE_ON_CPU = 2
LARGE = 200_000_000  # parameters
FIRST_BATCH = 2  # windows, where someone waits for the first words

SHORTEST_REST = 0.5  # seconds at a window's end that a model may leave unheard


@dataclass(frozen=True)
class Heard:
    """Some more of a recording."""

    source: "Source"
    segments: list[dict[str, Any]]
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
    read: float = 0.0  # seconds that decoding and finding speech took
    model: float = 0.0  # seconds of its share in the batches


class Listener:
    """One run over recordings.

    Iterating gives, source by source, `Heard` as its windows are done and then its `Outcome`. At most one batch of
    windows and a block of sound are in memory, whatever the recordings' length. `load` is called once, when the first
    speech was found. Raises ModelError where the model cannot be loaded or run.
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
        first_soon: bool = False,
    ):
        """`first_soon` makes the first batch a small one, for those who watch."""
        self._request, self._load = request, load
        self._model, self._revision = model, revision
        self._batch_size = batch_size
        self._start, self._duration = start, duration
        self._first = first_soon
        self._loaded: Loaded | None = None
        self._detector: SileroVAD | None = None

    def run(self, sources: "Iterable[Source]") -> Iterator[Heard | Outcome]:
        """Listen to all of them."""
        batch: list[tuple[_Recording, Window | None]] = []  # None: the recording's end
        waiting = 0
        for recording, window in self._windows(sources):
            batch.append((recording, window))
            waiting += window is not None
            if waiting == 0:  # nothing to compute before this end
                yield from self._finish(batch)
                batch = []
            elif waiting >= self._size():
                yield from self._finish(batch)
                batch, waiting, self._first = [], 0, False
        yield from self._finish(batch)

    def _size(self) -> int:
        loaded = self._model_here()
        size = self._batch_size or default_batch_size(loaded)
        return min(size, FIRST_BATCH) if self._first else size

    def _model_here(self) -> "Loaded":
        if self._loaded is None:
            loaded = self._load()
            self._request.require(loaded, self._model)
            self._revision = loaded.checkpoint.revision
            self._loaded = loaded
        return self._loaded

    def _detector_here(self) -> "SileroVAD":
        if self._detector is None:
            from mmcli.layers.silero_vad import load_silero_vad

            self._detector = load_silero_vad()
        return self._detector

    # -- reading -------------------------------------------------------------------------------------------------

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
        from mmcli.media.audio import open_sound

        started = time.perf_counter()
        with open_sound(recording.source, start=self._start, duration=self._duration) as reader:
            recording.length = _part(reader.sound.seconds, self._start, self._duration)
            recording.speech = speech = Speech(reader, self._detector_here(), start=self._start)
            for window in speech.windows():
                recording.read += time.perf_counter() - started
                yield recording, window
                started = time.perf_counter()
            recording.notes = reader.sound.notes
        recording.read += time.perf_counter() - started

    # -- hearing -------------------------------------------------------------------------------------------------

    def _finish(self, batch: list[tuple[_Recording, Window | None]]) -> Iterator[Heard | Outcome]:
        """Hear one batch and hand out what came of it, ends in their places."""
        windows = [window for _, window in batch if window is not None]
        started = time.perf_counter()
        passages = iter(self._hear(windows) if windows else [])
        share = (time.perf_counter() - started) / max(len(windows), 1)
        for recording, window in batch:
            if window is None:
                yield self._outcome(recording)
                continue
            recording.model += share
            found = next(passages)
            recording.passages += found
            segments = [segment for one in found for segment in one.segments()]
            yield Heard(recording.source, segments, window.end - recording.start, recording.length)

    def _hear(self, windows: list[Window]) -> list[list[Passage]]:
        """What was said in each window; what the model left unheard at its end is listened to again."""
        found: list[list[Passage]] = [[] for _ in windows]
        todo = list(enumerate(windows))
        while todo:
            texts = self._transcribe([window.sound for _, window in todo])
            again = []
            for (place, window), text in zip(todo, texts, strict=True):
                found[place].append(passage(window, text, self._loaded))
                again += [(place, rest) for rest in self._rest(window, text)]
            todo = again
        return found

    def _rest(self, window: Window, text: Any) -> list[Window]:
        """Windows of the speech behind the place where a model says that more follows."""
        heard = round(text.heard_until * RATE)
        if heard <= 0 or len(window.sound) - heard < SHORTEST_REST * RATE:
            return []
        return list(Speech([window.sound[heard:]], self._detector_here(), start=window.start + heard / RATE).windows())

    def _transcribe(self, sounds: list[np.ndarray]) -> list[Any]:
        from mmcli.tasks.answer import in_words

        loaded = self._model_here()
        size = self._batch_size or default_batch_size(loaded)
        texts: list[Any] = []
        try:
            for at in range(0, len(sounds), size):
                texts += loaded.family.transcribe(loaded, sounds[at : at + size], **self._request.settings())
        except RuntimeError as error:
            raise in_words(error, min(size, len(sounds)), "window") from error
        return texts

    def _outcome(self, recording: _Recording) -> Outcome:
        from mmcli.output.record import failed_record, transcript_record

        source, passages, request = recording.source, recording.passages, self._request
        named = {"task": request.task, "source": source.name, "model": self._model, "revision": self._revision}
        if recording.error is not None:
            return Outcome(source, failed_record(**named, error=recording.error), recording.error)
        seconds = recording.speech.seconds
        told = self._loaded.family.timestamps if self._loaded else "segment"
        spent = recording.read + recording.model
        notes = [*recording.notes, *notes_of(passages)]
        if not recording.speech.count:
            notes.append("no speech was found in it")
        record = transcript_record(
            **named,
            seconds=recording.start + seconds,
            language=main_language(passages),
            text=joined(one.raw() for one in passages),
            truncated=any(one.text.truncated for one in passages if not one.dropped),
            segments=[segment for one in passages for segment in one.segments()],
            timestamps="word" if request.words else told,
            notes=notes,
            timings={
                "read": recording.read,
                "model": recording.model,
                "real_time_factor": spent / seconds if seconds else 0.0,
                "windows": recording.speech.count,
                "left_out": recording.speech.left_out,
            },
            token_ids=[id for one in passages for id in one.text.token_ids] if request.token_ids else None,
        )
        return Outcome(source, record)


def default_batch_size(loaded: "Loaded") -> int:
    """How many windows go through the model together when nobody says."""
    if loaded.device.type != "cpu":
        return BATCH_ON_GPU
    large = sum(parameter.numel() for parameter in loaded.model.parameters()) > LARGE
    return BATCH_OF_LARGE_ON_CPU if large else BATCH_ON_CPU


def _part(seconds: float | None, start: float, duration: float | None) -> float | None:
    """How long the part from `start` is, as far as that is known."""
    rest = None if seconds is None else max(seconds - start, 0.0)
    return min((known for known in (rest, duration) if known is not None), default=None)
