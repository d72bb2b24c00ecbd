"""mmcli for Python programs: `model = mmcli.load(); model.caption("cat.jpg").text`.

One input gives a record; a list of them (in which folders and patterns stand for what is in them) gives an iterator of
records, read ahead and answered in batches, in which an input that failed is a record with an `error`. A video alone
gives an iterator too, over its frames; what is wrong with it is raised. The command line is a consumer of this module:
errors are the same exceptions (`mmcli.errors`) with the same sentences, which name arguments instead of options.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, overload

from mmcli.errors import UsageError
from mmcli.hub.known import IMAGE_MODEL
from mmcli.media.given import Given, is_one, one_source, sources
from mmcli.media.sources import AUDIO_EXTENSIONS, IMAGE_EXTENSIONS, RECORDING_EXTENSIONS
from mmcli.tasks.arguments import checked, in_python, value_of
from mmcli.tasks.caption import CaptionRequest
from mmcli.tasks.chat import ChatRequest
from mmcli.tasks.chat_session import ChatSession
from mmcli.tasks.detect import DetectRequest, tidy_labels
from mmcli.tasks.pieces import Pieces
from mmcli.tasks.read import ReadRequest
from mmcli.tasks.segment import SegmentRequest
from mmcli.tasks.stream import Stream, texts
from mmcli.tasks.transcribe import TranscribeRequest

if TYPE_CHECKING:
    from mmcli.batch.outcome import Outcome
    from mmcli.batch.transcribe import PartialTranscript
    from mmcli.media.sampling import Sampling
    from mmcli.media.sources import Source
    from mmcli.models.family import Capabilities
    from mmcli.models.loaded import Loaded
    from mmcli.output.schema import Record
    from mmcli.tasks.attachments import Attachment
    from mmcli.tasks.task import Request


class Asking(TypedDict, total=False):
    """How a question is asked; what is left out is as on the command line."""

    prompt: str  # instead of the task's own words
    max_tokens: int
    temperature: float  # 0: the likeliest tokens
    top_k: int
    top_p: float
    seed: int
    token_ids: bool  # keep the answer's token ids in its record


class Seeing(Asking, total=False):
    """… about images, and about videos: a record for each of these frames."""

    every: float  # seconds from one frame to the next; left out: 1
    frames: int  # of each video, evenly spread


class Captioning(Seeing, total=False):
    """… for captions."""

    detail: Literal["low", "medium", "high"]  # how much they tell, with models that know several lengths
    beams: int  # answers that are followed side by side


class Finding(Seeing, total=False):
    """… a question for objects in images."""

    min_score: float  # leave out what is less likely, with models that give probabilities
    nms: float  # of objects of one label that overlap by more than this share keep the better ones
    max_objects: int  # keep so many of the best
    loc_divisor: int  # how <locNNNN> becomes a share of the side
    beams: int


class Reading(Seeing, total=False):
    """… to read what is written in images."""

    boxes: bool  # tell of each piece of text where it stands, with models that know
    beams: int


class TranscribeOptions(TypedDict, total=False):
    """What of a recording is written down, and how."""

    task: Literal["transcribe", "translate"]
    language: str  # left out: the model finds out
    hint: str  # names and words that may be said, as they are spelt
    words: bool  # find the time of every word too
    beams: int
    temperature: float  # left out: 0, and warmer where a text fails its tests
    seed: int
    token_ids: bool
    start: float  # seconds
    duration: float  # seconds
    track: int  # of a video, from 1


def load(
    name: str | PathLike[str] = IMAGE_MODEL,
    *,
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    quantize: str = "auto",
    mask_decoder: str | PathLike[str] | None = None,
    adapter: str | PathLike[str] | None = None,
    download: bool = True,
) -> "Model":
    """A model in memory: a bundled one, a checkpoint's folder, or a repository of the Hugging Face hub at `revision`.

    `quantize` keeps its decoder in integers, "int8" or "int4"; `adapter` is a folder of LoRA weights to put on top.
    Raises ModelError where it cannot be found, downloaded (never with `download=False`) or read.
    """
    from mmcli.hub.resolve import resolve
    from mmcli.models.load import load as load_checkpoint

    added, masks = (None if one is None else Path(one) for one in (adapter, mask_decoder))
    kept = value_of("quantize", Literal["auto", "none", "int8", "int4"], quantize)
    with in_python():
        checkpoint = replace(resolve(str(name), revision, download=download), adapter=added)
        loaded = load_checkpoint(checkpoint, str(device), str(dtype), masks, quantize=kept)
    return Model(lambda: loaded, str(name), checkpoint.revision, lambda: loaded.processor.capabilities)


class Model:
    """A model, and what can be asked of it. What it cannot do is a ModelError that says so."""

    def __init__(
        self,
        load: "Callable[[], Loaded]",
        name: str,
        revision: str | None = None,
        able: "Callable[[], Capabilities | None]" = lambda: None,
    ):
        """`load` is called with the first input that was read, and not at all where none can be.

        `able` tells before that what the model can do, or None where it is not known yet.
        """
        self._load, self.name, self.revision, self._able = load, name, revision, able
        self._loaded: Loaded | None = None

    def __repr__(self) -> str:
        return f"<mmcli model {self.name}>"

    @property
    def loaded(self) -> "Loaded":
        """The model itself, its processor and its files."""
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded

    # -- images --------------------------------------------------------------------------------------------------

    @overload
    def caption(self, images: Given, **options: Unpack[Captioning]) -> "Record": ...  # type: ignore[overload-overlap]
    @overload
    def caption(
        self, images: Iterable[Given], *, batch_size: int | None = ..., **options: Unpack[Captioning]
    ) -> "Iterator[Record]": ...
    def caption(self, images: Any, *, batch_size: int | None = None, **options: Unpack[Captioning]) -> Any:
        """Say in a sentence what an image shows, or each of many."""
        return self._about(CaptionRequest, Captioning, options, images, batch_size)

    @overload
    def detect(self, labels: str | Sequence[str], images: Given, **options: Unpack[Finding]) -> "Record": ...  # type: ignore[overload-overlap]
    @overload
    def detect(
        self,
        labels: str | Sequence[str],
        images: Iterable[Given],
        *,
        batch_size: int | None = ...,
        **options: Unpack[Finding],
    ) -> "Iterator[Record]": ...
    def detect(self, labels: Any, images: Any, *, batch_size: int | None = None, **options: Unpack[Finding]) -> Any:
        """Find objects ("cat", "cat ; dog" or ["cat", "dog"]): `objects` of the record, with boxes."""
        return self._about(DetectRequest, Finding, options, images, batch_size, words=_named(labels))

    @overload
    def segment(self, labels: str | Sequence[str], images: Given, **options: Unpack[Finding]) -> "Record": ...  # type: ignore[overload-overlap]
    @overload
    def segment(
        self,
        labels: str | Sequence[str],
        images: Iterable[Given],
        *,
        batch_size: int | None = ...,
        **options: Unpack[Finding],
    ) -> "Iterator[Record]": ...
    def segment(self, labels: Any, images: Any, *, batch_size: int | None = None, **options: Unpack[Finding]) -> Any:
        """Find objects and outline them: `objects` of the record, with boxes and masks."""
        return self._about(SegmentRequest, Finding, options, images, batch_size, words=_named(labels))

    @overload
    def read(self, images: Given, **options: Unpack[Reading]) -> "Record": ...  # type: ignore[overload-overlap]
    @overload
    def read(
        self, images: Iterable[Given], *, batch_size: int | None = ..., **options: Unpack[Reading]
    ) -> "Iterator[Record]": ...
    def read(self, images: Any, *, batch_size: int | None = None, **options: Unpack[Reading]) -> Any:
        """Read the text in an image: `text` of the record; with `boxes` its `objects` are the pieces of text."""
        return self._about(ReadRequest, Reading, options, images, batch_size)

    def _about(
        self,
        kind: "type[Request]",
        known: type,
        options: "Seeing",
        images: Any,
        batch_size: int | None,
        words: str = "",
    ) -> "Record | Iterator[Record]":
        from mmcli.batch.frames import holds_video
        from mmcli.media.sampling import Sampling

        with in_python():
            settings = checked(kind.task, known, options)
            size = None if batch_size is None else value_of("batch_size", int, batch_size)
            sampling = Sampling.given(settings.pop("every", None), settings.pop("frames", None))
            request = kind(words=words, **settings)
            if not is_one(images):
                found = sources(images, IMAGE_EXTENSIONS)
                outcomes = self.answers(request, found, batch_size=size, sampling=sampling)
                return _worded(outcome.record for outcome in outcomes)
            source = one_source(images, IMAGE_EXTENSIONS)
            if holds_video(source):
                return _worded(map(_good, self.answers(request, [source], batch_size=size, sampling=sampling)))
            [outcome] = self.answers(request, [source])
            return _good(outcome)

    def answers(
        self,
        request: "Request",
        sources: "Iterable[Source]",
        *,
        batch_size: int | None = None,
        keep_images: bool = False,
        sampling: "Sampling | None" = None,
    ) -> "Iterator[Outcome]":
        """What came of each source, of videos of each frame of a `sampling`: see `batch.images.run`."""
        from mmcli.batch.images import run

        return run(
            sources,
            request,
            lambda: self.loaded,
            model=self.name,
            revision=self.revision,
            able=self._able,
            batch_size=batch_size,
            keep_images=keep_images,
            sampling=sampling,
        )

    # -- recordings ----------------------------------------------------------------------------------------------

    @overload
    def transcribe(self, audio: Given, **options: Unpack[TranscribeOptions]) -> "Record": ...  # type: ignore[overload-overlap]
    @overload
    def transcribe(
        self, audio: Iterable[Given], *, batch_size: int | None = ..., **options: Unpack[TranscribeOptions]
    ) -> "Iterator[Record]": ...
    def transcribe(self, audio: Any, *, batch_size: int | None = None, **options: Unpack[TranscribeOptions]) -> Any:
        """Write down what is said in a recording, or in each of many: `text` and `segments` of the record."""
        from mmcli.batch.outcome import Outcome

        with in_python():
            settings = checked("transcribe", TranscribeOptions, options)
            size = None if batch_size is None else value_of("batch_size", int, batch_size)
            part = {name: settings.pop(name) for name in ("start", "duration", "track") if name in settings}
            one = is_one(audio)
            found = [one_source(audio, RECORDING_EXTENSIONS)] if one else sources(audio, RECORDING_EXTENSIONS)
            request = TranscribeRequest(**settings)
            outcomes = (
                event
                for event in self.transcripts(request, found, batch_size=size, **part)
                if isinstance(event, Outcome)
            )
            return _good(next(outcomes)) if one else _worded(outcome.record for outcome in outcomes)

    def transcripts(
        self, request: TranscribeRequest, sources: "Iterable[Source]", **options: Any
    ) -> "Iterator[PartialTranscript | Outcome]":
        """Segments as windows are done, and what came of each source: see `batch.transcribe.transcribe`."""
        from mmcli.batch.transcribe import transcribe

        return transcribe(sources, request, lambda: self.loaded, model=self.name, revision=self.revision, **options)

    # -- questions -----------------------------------------------------------------------------------------------

    @overload
    def chat(
        self, question: str, *about: Given, system: str = ..., stream: Literal[False] = ..., **options: Unpack[Asking]
    ) -> "Record": ...
    @overload
    def chat(
        self, question: str, *about: Given, system: str = ..., stream: Literal[True], **options: Unpack[Asking]
    ) -> "Stream": ...
    def chat(
        self, question: str, *about: Given, system: str = "", stream: bool = False, **options: Unpack[Asking]
    ) -> "Record | Stream":
        """Ask about images and recordings, or about nothing where the model can: a record, or its text as it comes."""
        return self.conversation(system=system, **options).ask(question, *about, stream=stream)

    def conversation(self, *, system: str = "", **options: Unpack[Asking]) -> "Chat":
        """Questions one after another; a model that knows turns remembers what was said and shown."""
        with in_python():
            request = ChatRequest(**checked("chat", Asking, options))
            return Chat(ChatSession(lambda: self.loaded, request, system), self.name, self._able)


class Chat:
    """A conversation with a model."""

    def __init__(self, session: ChatSession, name: str, able: "Callable[[], Capabilities | None]"):
        """A `session` with the model called `name`; `able` as for `Model`."""
        self._session, self._name, self._able = session, name, able

    @overload
    def ask(self, question: str, *about: Given, stream: Literal[False] = ...) -> "Record": ...
    @overload
    def ask(self, question: str, *about: Given, stream: Literal[True]) -> "Stream": ...
    @overload
    def ask(self, question: str, *about: Given, stream: bool) -> "Record | Stream": ...
    def ask(self, question: str, *about: Given, stream: bool = False) -> "Record | Stream":
        """The answer to a question about these inputs and all that came before."""
        if not question.strip():
            raise UsageError("The question is empty", "Ask one")
        from mmcli.tasks.attachments import load_attachment

        with in_python():
            found = [one_source(one, IMAGE_EXTENSIONS | AUDIO_EXTENSIONS) for one in about]
            attachments = [load_attachment(source, able=self._able, model=self._name) for source in found]
        answer: Stream = Stream(self._pieces(question, attachments))
        if stream:
            return answer
        for _ in answer:
            pass
        return answer.record

    def _pieces(self, question: str, attachments: "list[Attachment]") -> "Generator[str, None, Record]":
        """The answer's text, piece by piece → its record. One that is broken off was never asked for."""
        session, before = self._session, self._session.waiting
        try:
            with in_python():
                if attachments:
                    session.show(attachments)
                pieces = Pieces(session.ready().loaded.processor.decode)
                record = yield from texts(session.asking(question), pieces)
        except BaseException:
            session.waiting = before
            raise
        if piece := pieces.rest():
            yield piece
        return record

    def clear(self) -> None:
        """Forget what was said and shown."""
        self._session.clear()


def _named(labels: "str | Sequence[str]") -> str:
    """What is to be found, as models were trained to be asked. UsageError for nothing."""
    named = tidy_labels(labels if isinstance(labels, str) else " ; ".join(labels))
    if not named:
        raise UsageError("Nothing is named that could be found", 'Name it, such as "cat" or ["cat", "dog"]')
    return named


def _good(outcome: "Outcome") -> "Record":
    if outcome.error is not None:
        raise outcome.error
    return outcome.record


def _worded(records: "Iterable[Record]") -> "Iterator[Record]":
    """The same, whose errors name arguments."""
    with in_python():
        yield from records
