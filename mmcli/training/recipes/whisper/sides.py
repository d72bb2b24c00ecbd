"""Clips transcribed by mmcli, or by faster-whisper beside it, in as many processes as there is room for."""

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import chain, groupby
from multiprocessing import get_context
from pathlib import PurePosixPath
from typing import Any, TypeAlias

import torch

from mmcli.batch.outcome import Outcome
from mmcli.batch.transcribe import transcribe
from mmcli.hub.resolve import resolve
from mmcli.media.sources import Source
from mmcli.models.load import load
from mmcli.tasks.transcribe import TranscribeRequest
from mmcli.training.recipes.whisper.clips import Clip

Transcribed: TypeAlias = tuple[str, str]  # the text, and in which language
Transcriber: TypeAlias = Callable[[Sequence[Clip]], list[Transcribed]]


@dataclass(frozen=True)
class Side:
    """One way to transcribe clips."""

    model: str
    peer: bool = False  # by faster-whisper, `model` being a folder in CTranslate2's form
    batch: int = 8  # clips that go through the model together; the peer takes one at a time
    beams: int | None = 1  # None: the peer's own defaults, five beams without voice activity detection
    threads: int = 1
    detect: bool = False  # the language is found out

    def open(self) -> Transcriber:
        """Load the model → what transcribes clips; they must be in one language, unless that is found out."""
        torch.set_num_threads(self.threads)
        return _faster_whisper(self) if self.peer else _mmcli(self)


def transcribed(side: Side, clips: Sequence[Clip], jobs: int = 1) -> list[Transcribed]:
    """What a side writes for each clip, in `jobs` processes.

    A process takes the next `side.batch` clips of the order when it is done with others: the same clips are together
    in a batch whatever the number of processes, and the texts are the same too.
    """
    places = _batches(side, clips)
    work = [[clips[at] for at in batch] for batch in places]
    jobs = min(jobs, len(work))
    if jobs <= 1:
        run = side.open()
        found = list(chain.from_iterable(map(run, work)))
    else:
        # Spawned: PyTorch's threads do not outlive a fork.
        with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_begin, initargs=(side,)) as pool:
            found = list(chain.from_iterable(pool.map(_run, work)))
    by_place = dict(zip(chain.from_iterable(places), found, strict=True))
    return [by_place[at] for at in range(len(clips))]


def _batches(side: Side, clips: Sequence[Clip]) -> list[list[int]]:
    """Places of clips that go through the model together: of one language, unless that is found out."""

    def language(at: int) -> str:
        return "" if side.detect else clips[at].language

    own = [list(places) for _, places in groupby(sorted(range(len(clips)), key=language), key=language)]
    return [places[first : first + side.batch] for places in own for first in range(0, len(places), side.batch)]


_transcriber: Transcriber  # of a process of the pool


def _begin(side: Side) -> None:
    global _transcriber
    _transcriber = side.open()


def _run(clips: Sequence[Clip]) -> list[Transcribed]:
    return _transcriber(clips)


def _mmcli(side: Side) -> Transcriber:
    """What `mmcli transcribe` writes, each clip being a recording of its own."""
    loaded = load(resolve(side.model), "cpu")

    def run(clips: Sequence[Clip]) -> list[Transcribed]:
        sources = (Source("-", None, None, PurePosixPath(clip.file), stream=io.BytesIO(clip.data)) for clip in clips)
        request = TranscribeRequest(language=None if side.detect else clips[0].language, beams=side.beams or 1)
        events = transcribe(sources, request, lambda: loaded, model=side.model, batch_size=side.batch, lanes=1)
        records = [event.record for event in events if isinstance(event, Outcome)]
        for record in records:
            if record.error is not None:
                raise RuntimeError(record.error)
        return [(record.text, record.language or "") for record in records]

    return run


def _faster_whisper(side: Side) -> Transcriber:
    """The same of faster-whisper in int8, with its own voice activity detection unless `beams` is None."""
    from faster_whisper import WhisperModel

    model = WhisperModel(side.model, device="cpu", compute_type="int8", cpu_threads=side.threads)
    settings: dict[str, Any] = (
        {} if side.beams is None else {"beam_size": side.beams, "vad_filter": True, "condition_on_previous_text": False}
    )

    def one(clip: Clip) -> Transcribed:
        language = None if side.detect else clip.language
        segments, about = model.transcribe(io.BytesIO(clip.data), language=language, **settings)
        return "".join(segment.text for segment in segments).strip(), about.language

    return lambda clips: [one(clip) for clip in clips]
