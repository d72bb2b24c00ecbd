"""Many recordings through one model: their windows in batches, their texts in order as they come.

Three things go on at the same time: a thread reads and finds speech (`reader.py`) and puts windows together
(`batcher.py`), a few threads recognise batches (`recogniser.py`), and the caller gets texts.
"""

import functools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mmcli.batch.batcher import Batch, Batcher
from mmcli.batch.lanes import Lanes
from mmcli.batch.loading import BackgroundModel
from mmcli.batch.outcome import Outcome
from mmcli.batch.prefetch import prefetch
from mmcli.batch.reader import Part, Reader, Recording
from mmcli.batch.recogniser import Recogniser
from mmcli.output.schema import Record
from mmcli.tasks.transcribe import Passage, TranscribeRequest, notes_of
from mmcli.types import Segment

if TYPE_CHECKING:
    from mmcli.media.sources import Source
    from mmcli.models.loaded import Loaded
    from mmcli.speech.silero_vad import SileroVAD


@dataclass(frozen=True)
class PartialTranscript:
    """Some more of a recording."""

    source: "Source"
    segments: list[Segment]
    reached: float  # seconds of audio that were processed so far, pauses included
    length: float | None  # seconds of audio in all, where it is known


def transcribe(
    sources: "Iterable[Source]",
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
) -> Iterator[PartialTranscript | Outcome]:
    """Write down what is said in every source: pieces as windows are done and then its outcome, source by source.

    `load` is called once, in a thread of its own, when the first speech was found. `model` and `revision` are what the
    records of failed inputs call it. `start`, `duration` (seconds) and `track` take a part of each recording, see
    `Part`. `first_soon` makes the first batch a small one, for those who watch. `lanes`: how many batches are
    recognised at the same time; None: as many as pay on the model's device. A few batches of windows and a block of
    audio are in memory, whatever the recordings' length.
    Raises ModelError where the model cannot be loaded or run; the outcomes until then have been handed out.
    """
    part, room = Part(start, duration, track), Lanes(lanes)

    def load_for_all() -> "Loaded":
        loaded = load()
        request.require(loaded, model)
        room.open(loaded)
        return loaded

    loading = BackgroundModel(load_for_all)
    detector = functools.cache(_load_detector)
    recogniser = Recogniser(request, detector, batch_size)
    batches = Batcher(loading, batch_size, room.most, first_soon=first_soon).batches(
        Reader(part, detector, room).read(sources)
    )
    transcripts = _Transcripts(request, part, model, revision)
    work = functools.partial(_recognise, recogniser, loading, room)
    for batch, done in prefetch(work, batches, depth=room.most + 1, threads=room.most):
        yield from transcripts.add(batch, done.result())


def _load_detector() -> "SileroVAD":
    from mmcli.speech.silero_vad import load_silero_vad

    return load_silero_vad()


@dataclass(frozen=True)
class _Recognised:
    """What came of a batch."""

    passages: list[list[Passage]]  # of each window
    seconds: float  # of the whole machine that a window took
    loaded: "Loaded"


def _recognise(recogniser: Recogniser, model: BackgroundModel, lanes: Lanes, batch: Batch) -> _Recognised | None:
    """Run a batch in the calling thread; None where it holds no window."""
    windows = [window for _, window in batch if window is not None]
    if not windows:
        return None
    loaded = model.wait()
    with lanes.one(len(windows)):
        started = time.perf_counter()
        passages = recogniser.recognise(loaded, windows)
        seconds = (time.perf_counter() - started) / lanes.count / len(windows)
    return _Recognised(passages, seconds, loaded)


@dataclass
class _Transcripts:
    """Puts the passages of batches together again, one recording after another."""

    request: TranscribeRequest
    part: Part
    model: str
    revision: str | None
    loaded: "Loaded | None" = None  # as soon as a window went through it
    passages: list[Passage] = field(default_factory=list)  # of the recording that has not ended
    spent: float = 0.0  # seconds of the model on it

    def add(self, batch: Batch, recognised: _Recognised | None) -> Iterator[PartialTranscript | Outcome]:
        """What there is to hand out after one more batch, ends in their places."""
        found = iter(recognised.passages if recognised else ())
        if recognised is not None:
            self.loaded = recognised.loaded
        for recording, window in batch:
            if window is None:
                yield self._end(recording)
                self.passages, self.spent = [], 0.0
                continue
            passages = next(found)
            self.passages += passages
            self.spent += recognised.seconds if recognised else 0.0
            segments = [segment for one in passages for segment in one.segments()]
            yield PartialTranscript(recording.source, segments, window.end - self.part.start, recording.length)

    def _end(self, recording: Recording) -> Outcome:
        from mmcli.tasks.result import transcript_record
        from mmcli.tasks.settings import audio_settings

        source, part, loaded = recording.source, self.part, self.loaded
        begun = Record(
            task=self.request.task,
            source=source.name,
            model=self.model,
            revision=self.revision if loaded is None else loaded.checkpoint.revision,
            settings=audio_settings(self.request, loaded, start=part.start, duration=part.duration, track=part.track),
        )
        if recording.error is not None:
            return Outcome(source, replace(begun, error=str(recording.error)), recording.error)
        spent, seconds = recording.spent + self.spent, recording.seconds
        timings = {
            "read": recording.spent,
            "model": self.spent,
            "real_time_factor": spent / seconds if seconds else 0.0,
            "windows": recording.windows,
            "left_out": recording.left_out,
        }
        silent = () if recording.windows else ("no speech was found in it",)
        record = transcript_record(
            replace(begun, seconds=part.start + seconds, timings=timings),
            self.request,
            self.passages,
            loaded,
            notes=(*recording.notes, *notes_of(self.passages), *silent),
            identity=recording.identity,
        )
        return Outcome(source, record)
