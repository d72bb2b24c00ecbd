"""Work that other processes do: their task, their inputs, and their results.

All of it is plain data that may cross a network. A source is sent by its number and its place, and an answer comes back
under that number: whoever sent it writes the results and the manifest, as if the work had been done here.
"""

import json
import os
import socket
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar

from mmcli.batch.found import FoundSource
from mmcli.batch.outcome import Outcome
from mmcli.batch.sizes import ON_GPU, PLACES_ON_GPU
from mmcli.errors import (
    InputError,
    MachineError,
    MemoryShortage,
    MmcliError,
    ModelError,
    UsageError,
    raise_if_interrupted,
    ran_out_of_memory,
)
from mmcli.media.naming import printable
from mmcli.media.sources import Source
from mmcli.output.record import from_dict
from mmcli.output.schema import Record
from mmcli.tasks.task import Request
from mmcli.tasks.transcribe import TranscribeRequest
from mmcli.version import __version__

if TYPE_CHECKING:
    from mmcli.hub.resolve import Checkpoint
    from mmcli.models.family import Capabilities
    from mmcli.models.loaded import Loaded

_ENDS = {kind.__name__: kind for kind in (MachineError, MemoryShortage, ModelError, UsageError)}


@dataclass(frozen=True)
class Choice:
    """A model as it was chosen, and how it is to run."""

    model: str  # as records call it
    place: str  # the same, of a folder its whole path
    revision: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    table: str = "auto"
    quantize: str = "auto"
    mask_decoder: str | None = None
    adapter: str | None = None
    download: bool = True
    weights: str | None = None  # what identifies those that all must have (`hub/fingerprint.py`), if it is known
    threads: int | None = None  # that compute; None: as many as PyTorch likes
    version: str = __version__  # of mmcli, where the work was given out

    def checkpoint(self) -> "Checkpoint":
        """Its files on this machine. ModelError."""
        from mmcli.hub.resolve import resolve

        found = resolve(self.place, self.revision, download=self.download)
        return replace(found, name=self.model, adapter=None if self.adapter is None else Path(self.adapter))


@dataclass(frozen=True)
class Work:
    """What is to be done with every source."""

    choice: Choice
    places_on_gpu: ClassVar[int] = ON_GPU  # inputs, or parts of them, that a GPU may work on at the same time

    def outcomes(
        self, sources: Iterable[Source], load: "Callable[[], Loaded]", able: "Callable[[], Capabilities | None]"
    ) -> Iterator[Outcome]:
        """What came of each source, in their order; raises as `batch.images.run`."""
        raise NotImplementedError

    def failed(self, source: Source, error: InputError) -> Outcome:
        """The outcome of a source that no worker could answer."""
        raise NotImplementedError


@dataclass(frozen=True)
class ImageWork(Work):
    """A question about every image."""

    request: Request
    batch_size: int | None = None
    places_on_gpu: ClassVar[int] = PLACES_ON_GPU

    def outcomes(
        self, sources: Iterable[Source], load: "Callable[[], Loaded]", able: "Callable[[], Capabilities | None]"
    ) -> Iterator[Outcome]:
        from mmcli.batch.images import run

        name, revision = self.choice.model, self.choice.revision
        return run(sources, self.request, load, model=name, revision=revision, able=able, batch_size=self.batch_size)

    def failed(self, source: Source, error: InputError) -> Outcome:
        from mmcli.batch.images import failed

        return failed(source, error, self.request, self.choice.model, self.choice.revision)


@dataclass(frozen=True)
class RecordingWork(Work):
    """A transcript of every recording, or of a part of each."""

    request: TranscribeRequest
    batch_size: int | None = None
    start: float = 0.0
    duration: float | None = None
    track: int | None = None

    def outcomes(
        self, sources: Iterable[Source], load: "Callable[[], Loaded]", able: "Callable[[], Capabilities | None]"
    ) -> Iterator[Outcome]:
        from mmcli.batch.transcribe import transcribe

        part: dict[str, Any] = {name: getattr(self, name) for name in ("batch_size", "start", "duration", "track")}
        model, revision = self.choice.model, self.choice.revision
        events = transcribe(sources, self.request, load, model=model, revision=revision, **part)
        return (event for event in events if isinstance(event, Outcome))

    def failed(self, source: Source, error: InputError) -> Outcome:
        from mmcli.tasks.settings import audio_settings

        settings = audio_settings(self.request, start=self.start, duration=self.duration, track=self.track)
        model, revision = self.choice.model, self.choice.revision
        record = Record(
            task=self.request.task,
            source=source.name,
            model=model,
            revision=revision,
            settings=settings,
            error=str(error),
        )
        return Outcome(source, record, error)


# -- where the work is given out ---------------------------------------------------------------------------------


class Desk:
    """Gives sources out to workers and takes answers back, each once.

    `keep_images`: outcomes can read their image in full. With `apart` the workers may be on other machines.
    """

    def __init__(self, work: Work, *, keep_images: bool = False, apart: bool = False):
        self._work, self._keep, self._apart = work, keep_images, apart
        self._out: dict[int, Source] = {}
        self._count = 0

    @property
    def out(self) -> list[int]:
        """The numbers of the sources that there is no answer for yet, in the order of the sources."""
        return sorted(self._out)

    def give(self, source: Source) -> tuple[int, str]:
        """A source's number, and what to send to a worker. UsageError for what only this process can read."""
        if source.path is None and source.url is None and source.problem is None:
            what = "Standard input (-) cannot be sent to other processes"
            raise UsageError(what, "Save it as a file and name that")
        number, self._count = self._count, self._count + 1
        self._out[number] = source
        return number, self.again(number)

    def again(self, number: int) -> str:
        """The same for a source that was given out before."""
        source = self._out[number]
        sent = {"number": number, "name": source.name, "url": source.url, "relative": source.relative.as_posix()}
        sent["content"] = source.content
        sent["path"] = None if source.path is None else os.path.abspath(source.path)
        sent["problem"] = None if source.problem is None else [source.problem.what, source.problem.do]
        if isinstance(source, FoundSource):
            sent |= {"found": [asdict(record) for record in source.records], "beside": source.beside}
        return json.dumps(sent)

    def take(self, text: str) -> tuple[int, Outcome] | None:
        """What a worker sent back; None where there was an answer already.

        Raises what ended the work of all, as a ModelError.
        """
        sent = json.loads(text)
        if "end" in sent:
            raise _ended(sent)
        number = sent["number"]
        source = self._out.pop(number, None)
        if source is None:
            return None
        record, error = from_dict(sent["record"]), None
        if sent["error"] is not None:
            error = self._seen_from_here(source, InputError(*sent["error"]), sent["missing"])
            record = replace(record, error=str(error))
        return number, Outcome(source, record, error, self._full(source), tuple(sent["remarks"]))

    def fail(self, number: int, how: str) -> tuple[int, Outcome]:
        """The outcome of a source that ends every process which works on it; `how` follows "ended"."""
        source = self._out.pop(number)
        what = f"{printable(source.name)} cannot be read: every process that worked on it ended{how}"
        return number, self._work.failed(source, InputError(what, "Try it alone, with --debug"))

    def _full(self, source: Source) -> Any:
        if not self._keep:
            return None
        from mmcli.media.image import load_image

        return partial(load_image, source)

    def _seen_from_here(self, source: Source, error: InputError, missing: bool) -> InputError:
        """An input that is here and not where a worker is has not a wrong name."""
        if not (self._apart and missing and source.path is not None and os.path.exists(source.path)):
            return error
        what = f"{printable(source.name)} is not there on a worker's machine"
        return InputError(what, "Put it where all machines see it under one path, or in a store such as s3://")


def in_order(answers: Iterable[tuple[int, Outcome]]) -> Iterator[Outcome]:
    """Outcomes in the order of the sources; those that come early wait."""
    early: dict[int, Outcome] = {}
    following = 0
    for number, outcome in answers:
        early[number] = outcome
        while following in early:
            yield early.pop(following)
            following += 1


def _ended(sent: dict[str, Any]) -> MmcliError:
    kind = _ENDS.get(sent["end"])
    if kind is not None:
        error: MmcliError = kind(sent["what"], sent["do"])
    else:
        what = f"A worker met an unexpected error: {sent['end']}: {sent['what']}"
        error = MachineError(what, "This is a fault of mmcli; run it again with --debug and report the traceback")
    error.__cause__ = RuntimeError(sent["trace"])
    return error


# -- where it is done --------------------------------------------------------------------------------------------


class Worker:
    """Does the work in its own process, with a model that is loaded when the first input was read, and kept."""

    def __init__(self, work: Work):
        self._work = work
        self._loaded: Loaded | None = None

    def answers(self, inputs: Iterable[str]) -> Iterator[str]:
        """For each text of a `Desk` one for it, in their order; an error that ends the work is the last one."""
        numbers: list[int] = []  # of what was drawn and is not answered, in order

        def sources() -> Iterator[Source]:
            for text in inputs:
                sent = json.loads(text)
                numbers.append(sent["number"])
                yield _source(sent)

        try:
            self._check_version()
            for outcome in self._work.outcomes(sources(), self._load, self._able):
                yield json.dumps(_answer(numbers.pop(0), outcome))
        except Exception as error:
            raise_if_interrupted(error)
            yield json.dumps(_end(error))

    def _check_version(self) -> None:
        if self._work.choice.version != __version__:
            what = f"The worker on {socket.gethostname()} has mmcli {__version__}, and not {self._work.choice.version}"
            raise UsageError(what, "Install the same version on all machines")

    def _able(self) -> "Capabilities | None":
        """What the model can do, where it is on this machine already."""
        from mmcli.models.registry import capabilities_of

        try:
            return capabilities_of(replace(self._work.choice, download=False).checkpoint())
        except ModelError:  # what is wrong is said when it is loaded
            return None

    def _load(self) -> "Loaded":
        if self._loaded is not None:
            return self._loaded
        import torch

        from mmcli.hub.fingerprint import weights_of
        from mmcli.models.load import load

        choice = self._work.choice
        if choice.threads is not None:
            torch.set_num_threads(choice.threads)
        checkpoint = choice.checkpoint()
        if choice.weights is not None and weights_of(checkpoint) != choice.weights:
            what = f"{choice.model} has other weights on {socket.gethostname()} than where the run began"
            raise ModelError(what, "Copy the same files there, or name a --revision")
        decoder = Path(choice.mask_decoder) if choice.mask_decoder else None
        self._loaded = load(checkpoint, choice.device, choice.dtype, decoder, choice.table, quantize=choice.quantize)
        return self._loaded


def _source(sent: dict[str, Any]) -> Source:
    problem = None if sent["problem"] is None else InputError(*sent["problem"])
    path = None if sent["path"] is None else Path(sent["path"])
    place = sent["name"], path, sent["url"], PurePosixPath(sent["relative"])
    if "found" in sent:
        found = tuple(map(from_dict, sent["found"]))
        return FoundSource(*place, content=sent["content"], problem=problem, beside=sent["beside"], records=found)
    return Source(*place, content=sent["content"], problem=problem)


def _answer(number: int, outcome: Outcome) -> dict[str, Any]:
    error, path = outcome.error, outcome.source.path
    return {
        "number": number,
        "record": asdict(outcome.record),
        "error": None if error is None else [error.what, error.do],
        "missing": error is not None and path is not None and not os.path.lexists(path),
        "remarks": outcome.remarks,
    }


def _end(error: Exception) -> dict[str, Any]:
    if ran_out_of_memory(error) and not isinstance(error, MmcliError):
        error = MemoryShortage("A worker had not enough memory", "Start fewer workers, or choose a smaller model")
    what, do = (error.what, error.do) if isinstance(error, MmcliError) else (str(error), "")
    trace = "".join(traceback.format_exception(error))
    return {"end": type(error).__name__, "what": what, "do": do, "trace": trace}
