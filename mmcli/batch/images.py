"""Many images through one model: prefetched, batched, answered in order, one failure never stopping the rest."""

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import replace
from functools import cached_property, partial
from itertools import chain
from typing import TYPE_CHECKING, TypeAlias

from mmcli.batch.found import FoundSource
from mmcli.batch.frames import FrameSource, with_frames
from mmcli.batch.image_reader import PREFETCHED, ImageReader, ReadImage, prepared
from mmcli.batch.lanes import MOST_THREADS, Lanes
from mmcli.batch.outcome import Outcome, unforeseen
from mmcli.batch.prefetch import Prefetched, prefetch
from mmcli.batch.side_by_side import side_by_side
from mmcli.batch.sizes import LARGE_FOR_IMAGES, default_batch_size, default_places
from mmcli.errors import InputError, MmcliError, raise_if_interrupted, ran_out_of_memory
from mmcli.output.schema import Object, Record
from mmcli.output.sifting import sift
from mmcli.tasks.segment import SegmentRequest
from mmcli.tasks.task import Request

if TYPE_CHECKING:
    from PIL.Image import Image

    from mmcli.engine.inputs import Inputs
    from mmcli.media.image import LoadedImage
    from mmcli.media.sampling import Sampling
    from mmcli.media.sources import Source
    from mmcli.models.family import Capabilities
    from mmcli.models.loaded import Loaded
    from mmcli.types import Completion

# Times as many are in each of several batches side by side: their models are small, so a step costs what its operations
# do, however many rows they have.
SIDE_BY_SIDE = 2
LEAST = 4  # images of a batch for which it is worth writing answers together
AHEAD = 4  # times the images that are answered at a time: so far may one be in front of the first without an outcome


def run(
    sources: "Iterable[Source]",
    request: Request,
    load: "Callable[[], Loaded]",
    *,
    model: str,
    revision: str | None = None,
    able: "Callable[[], Capabilities | None]" = lambda: None,
    batch_size: int | None = None,
    keep_images: bool = False,
    sampling: "Sampling | None" = None,
) -> Iterator[Outcome]:
    """Answer `request` for every source, one outcome each, in their order; of videos one for each frame of `sampling`.

    `load` is called once, when the first image has been read: where no input is any good, no model is loaded.
    `model` and `revision` are what the records of failed inputs call it, and `able` tells what it can do, if that is
    known before it is loaded: images are read to the size that it wants, else the first ones are read twice. At most
    `PREFETCHED` images and one batch more than are run at the same time are in memory, of large ones smaller copies:
    `full` of an outcome reads those again.
    Raises ModelError where the model cannot be loaded or run; the outcomes until then have been handed out.
    """
    runner = _Runner(request, load, model, revision, batch_size, keep_images)
    reader = ImageReader(able, keep_images)
    if sampling is not None:
        sources = with_frames(sources, sampling)
    try:
        yield from runner.outcomes(sources, reader)
    finally:
        runner.lanes.close()
        reader.close()


_Entry: TypeAlias = "tuple[Source, ReadImage | InputError]"


class _Runner:
    """Answers images as their model likes it.

    Where its rows join, each begins when another ends; else they go in batches, of a small model on a CPU several at
    the same time.
    """

    def __init__(
        self,
        request: Request,
        load: "Callable[[], Loaded]",
        model: str,
        revision: str | None,
        batch_size: int | None,
        keep: bool,
    ):
        self.request, self._load, self.model, self.revision = request, load, model, revision
        self._size, self._keep = batch_size, keep
        self._places: int | None = None  # of rows that are answered at the same time, where they join
        self._first: int | None = None  # size of the batches with which the lanes begin
        self._ends_evenly = batch_size is None
        self._left: int | None = None  # sources behind the one that is drawn; None: nobody knows
        self.loaded: Loaded | None = None
        self.lanes = Lanes(most_threads=MOST_THREADS)

    def outcomes(self, sources: "Iterable[Source]", reader: "ImageReader") -> Iterator[Outcome]:
        """What came of each source, in their order."""
        self._left = len(sources) if isinstance(sources, Sized) and self._ends_evenly else None
        jobs = prefetch(reader.prefetch, sources, depth=PREFETCHED, threads=reader.threads)
        entries = self._entries(jobs, reader)
        for source, read in entries:
            if not isinstance(read, InputError):
                entries = chain([(source, read)], entries)
                break
            yield self.failed(source, read)
        if reader.prepare is not None:
            assert self._size is not None and self._places is not None
            jobs.widen(self._places)  # that all places can be filled at once: what waits are the model's inputs
            with self.lanes.one(self._size):
                yield from _Rows(self, entries, jobs, reader.prepare).outcomes(self._places, self._size)
            return
        for outcomes in side_by_side(self._answered, self._batches(entries), lambda: self.lanes.count):
            yield from outcomes

    def _entries(self, jobs: "Prefetched[Source, ReadImage | None]", reader: "ImageReader") -> Iterator[_Entry]:
        """Images and failed inputs in their order; the model is loaded when the first image has been read."""
        for source, future in jobs:
            read = _result(source, partial(reader.take, source, future))
            del future
            self._left = None if self._left is None else self._left - 1
            if not isinstance(read, InputError):
                if self.loaded is None:
                    self._open(reader)
                if read.side != reader.side:
                    read = _result(source, partial(reader.read, source))
            yield source, read
            del read

    def _open(self, reader: "ImageReader") -> None:
        """Load the model, open the lanes, and have images read as it needs them. Raises ModelError, UsageError."""
        loaded = self._load()
        self.request.require(loaded.processor, self.model)
        self.request.require_probabilities(loaded)
        self.lanes.open(loaded)
        self.loaded, self.revision = loaded, loaded.checkpoint.revision
        # Larger batches read the decoder's weights less often; with the first ones all lanes soon have something to do.
        whole = default_batch_size(loaded, LARGE_FOR_IMAGES)
        self._places = self._size or default_places(loaded, whole)
        self._first = self._size or max(1, whole // self.lanes.count)
        self._size = self._size or (whole if self.lanes.count == 1 else SIDE_BY_SIDE * whole)
        reader.use_capabilities(loaded.processor.capabilities)
        from mmcli.tasks.answer import inputs_of, rows_join

        outlines = isinstance(self.request, SegmentRequest) and self.request.from_boxes
        if self.lanes.count == 1 and not outlines and rows_join(loaded, self.request):
            reader.prepare = partial(inputs_of, loaded, self.request)
            reader.square = loaded.processor.square
        if loaded.device.type == "cuda":
            reader.decode_apart()

    def _batches(self, entries: Iterable[_Entry]) -> Iterator[list[_Entry]]:
        """Images in batches, failed inputs in their places."""
        batch: list[_Entry] = []
        good = begun = 0
        size: int | None = None  # of this batch
        for source, read in entries:
            good += not isinstance(read, InputError)
            size = size or self._next_size(begun)
            batch.append((source, read))
            del read
            if good == 0 or good == size:
                yield batch
                begun += good > 0
                batch, good, size = [], 0, None
        if batch:
            yield batch

    def _next_size(self, begun: int) -> int:
        """Images of the next batch. Where it is known how many are left, the last ones are divided among the lanes."""
        assert self._size is not None and self._first is not None
        size, lanes = self._first if begun < self.lanes.count else self._size, self.lanes.count
        return size if self._left is None or lanes == 1 else min(size, max(LEAST, -(-(1 + self._left) // lanes)))

    def _answered(self, batch: list[_Entry]) -> list[Outcome]:
        """Run one batch in the calling thread."""
        good = [(source, read) for source, read in batch if not isinstance(read, InputError)]
        if self.loaded is None or not good:
            return [self.failed(source, read) for source, read in batch if isinstance(read, InputError)]
        with self.lanes.one(len(good)):
            answers = iter(_answers(good, self.request, self.loaded))
            return [
                self.failed(source, read) if isinstance(read, InputError) else self.done(source, read, next(answers))
                for source, read in batch
            ]

    def failed(self, source: "Source", error: InputError) -> Outcome:
        """The outcome of an input that cannot be read."""
        return failed(source, error, self.request, self.model, self.revision)

    def done(self, source: "Source", read: ReadImage, completion: "Completion") -> Outcome:
        """The outcome of an image that was answered."""
        from mmcli.tasks.result import image_record

        assert self.loaded is not None
        own, given, boxes_by = _asked(source, self.request)
        record = image_record(
            own,
            completion,
            self.loaded,
            source.name,
            read.image,
            read.seconds,
            identity=read.identity,
            remarks=self._remarks,
            given=given,
            boxes_by=boxes_by,
        )
        if isinstance(source, FrameSource):
            record = replace(record, time=source.frame.time, frame=source.frame.number)
        full = partial(_full, source, read) if self._keep else None
        return Outcome(source, record, full=full, remarks=self._remarks)

    @cached_property
    def _remarks(self) -> tuple[str, ...]:
        assert self.loaded is not None
        return tuple(self.request.remarks(self.loaded))


class _Rows:
    """Images that are answered row by row: who comes next, and what came of each, in their order."""

    def __init__(
        self,
        runner: _Runner,
        entries: Iterator[_Entry],
        jobs: "Prefetched[Source, ReadImage | None]",
        prepare: "Callable[[Image], Inputs]",
    ):
        self._runner, self._entries, self._jobs, self._prepare = runner, entries, jobs, prepare
        self._running: dict[int, tuple[int, Source, ReadImage]] = {}  # by row: place among the sources, …
        self._done: dict[int, Outcome] = {}  # by place: those that wait for others in front of them
        self._rows = self._drawn = self._given = 0

    def outcomes(self, places: int, size: int) -> Iterator[Outcome]:
        """Answer up to `places` images at the same time, of which no more than `size` are read together."""
        from mmcli.tasks.answer import answer_each

        assert self._runner.loaded is not None
        self._most_drawn = AHEAD * places
        for row, completion in answer_each(self._runner.loaded, self._runner.request, self.take, places, size):
            place, source, read = self._running.pop(row)
            self._done[place] = self._runner.done(source, read, completion)
            del read
            yield from self._in_order()
        yield from self._in_order()

    def take(self, count: int, wait: bool) -> "list[Inputs] | None":
        """As `engine.scheduler.Take`. Outcomes that wait for a long answer in front of them do not pile up."""
        rows: list[Inputs] = []
        while len(rows) < count:
            if not wait and (self._drawn - self._given >= self._most_drawn or not self._jobs.ready):
                break
            entry = next(self._entries, None)
            if entry is None:
                return rows or None
            (source, read), place, self._drawn = entry, self._drawn, self._drawn + 1
            if isinstance(read, InputError):
                self._done[place] = self._runner.failed(source, read)
                continue
            read = read if read.inputs else prepared(read, self._prepare)
            assert read.inputs is not None
            rows.append(read.inputs)
            self._running[self._rows] = place, source, replace(read, inputs=None)
            self._rows += 1
        return rows

    def _in_order(self) -> Iterator[Outcome]:
        while self._given in self._done:
            yield self._done.pop(self._given)
            self._given += 1


def _full(source: "Source", read: ReadImage) -> "LoadedImage":
    """The image in full size: large ones are read again, that no more than one of them is there."""
    from mmcli.media.image import load_image

    if isinstance(source, FrameSource):
        return source.full()
    return read.full or load_image(source)


def _result(source: "Source", read: Callable[[], ReadImage]) -> ReadImage | InputError:
    """What reading gives; an unforeseen error is this input's failure too, not that of the whole run."""
    try:
        return read()
    except Exception as error:
        raise_if_interrupted(error)
        if isinstance(error, InputError):
            return error
        if isinstance(error, MmcliError) or ran_out_of_memory(error):
            raise
        return unforeseen(source, error)


def failed(source: "Source", error: InputError, request: Request, model: str, revision: str | None) -> Outcome:
    """The outcome of a source that no answer is to be had for."""
    from mmcli.tasks.settings import image_settings

    record = Record(
        task=request.task,
        source=source.name,
        model=model,
        revision=revision,
        settings=image_settings(request),
        error=str(error),
    )
    return Outcome(source, record, error)


def _answers(good: "list[tuple[Source, ReadImage]]", request: Request, loaded: "Loaded") -> "Sequence[Completion]":
    """What the model answers about images."""
    images = [read.image.image for _, read in good]
    if not isinstance(request, SegmentRequest) or not request.from_boxes:
        from mmcli.tasks.answer import answer

        return answer(loaded, [[image] for image in images], request)
    from mmcli.tasks.outline import outline

    given = [_asked(source, request)[1] or [] for source, _ in good]
    return outline(loaded, images, [(read.image.width, read.image.height) for _, read in good], given, request)


def _asked(source: "Source", request: Request) -> "tuple[Request, list[Object] | None, str | None]":
    """What is asked of one image alone: the request about it, the objects that are given, and who found them."""
    if not (isinstance(request, SegmentRequest) and request.from_boxes and isinstance(source, FoundSource)):
        return request, None, None
    given = sift(source.objects, nms=request.nms, most=request.max_objects)
    return request.about(one.label for one in given), given, source.models
