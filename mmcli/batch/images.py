"""Many images through one model: prefetched, batched, answered in order, one failure never stopping the rest."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from mmcli.batch.found import FoundSource
from mmcli.batch.frames import FrameSource, with_frames
from mmcli.batch.lanes import Lanes
from mmcli.batch.outcome import Outcome, unforeseen
from mmcli.batch.prefetch import prefetch
from mmcli.batch.side_by_side import side_by_side
from mmcli.batch.sizes import LARGE_FOR_IMAGES, default_batch_size
from mmcli.errors import InputError, MmcliError, raise_if_interrupted, ran_out_of_memory
from mmcli.media.limits import HELD_PIXELS, PROBE
from mmcli.output.schema import Object, Record
from mmcli.output.sifting import sift
from mmcli.tasks.segment import SegmentRequest
from mmcli.tasks.task import Request

if TYPE_CHECKING:
    from mmcli.media.image import LoadedImage
    from mmcli.media.sampling import Sampling
    from mmcli.media.sources import Source
    from mmcli.models.family import Capabilities
    from mmcli.models.loaded import Loaded
    from mmcli.types import Completion

PREFETCHED = 8  # images decoded and waiting, at most


@dataclass(frozen=True)
class _Read:
    """An image as the model will see it, perhaps the same in full."""

    image: "LoadedImage"
    full: "LoadedImage | None"
    seconds: float  # that reading took
    identity: str | None  # of the file as it was read (`media/identity.py`)
    side: int  # above which it was read


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
    reader = _Reader(able, keep_images)
    if sampling is not None:
        sources = with_frames(sources, sampling)
    try:
        for outcomes in side_by_side(runner.outcomes, runner.batches(sources, reader), lambda: runner.lanes.count):
            yield from outcomes
    finally:
        runner.lanes.close()


_Batch: TypeAlias = "list[tuple[Source, _Read | InputError]]"


class _Runner:
    """Puts images together and runs them: of a small model on a CPU several batches at the same time."""

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
        self.loaded: Loaded | None = None
        self.lanes = Lanes()

    def batches(self, sources: "Iterable[Source]", reader: "_Reader") -> Iterator[_Batch]:
        """Images in batches, failed inputs in their places; the model is loaded when the first has been read."""
        batch: _Batch = []
        good = 0
        for source, future in prefetch(reader.prefetch, sources, depth=PREFETCHED):
            read = _result(source, partial(reader.take, source, future))
            del future
            if not isinstance(read, InputError):
                good += 1
                if self.loaded is None:
                    reader.use_capabilities(self._open().processor.capabilities)
                if read.side != reader.side:
                    read = _result(source, partial(reader.read, source))
                    good -= isinstance(read, InputError)
            batch.append((source, read))
            del read
            if good == self._size or good == 0:
                yield batch
                batch, good = [], 0
        if batch:
            yield batch

    def _open(self) -> "Loaded":
        """Load the model and open the lanes. Raises ModelError, UsageError."""
        loaded = self._load()
        self.request.require(loaded.processor, self.model)
        self.request.require_probabilities(loaded)
        self.lanes.open(loaded)
        self.loaded, self.revision = loaded, loaded.checkpoint.revision
        self._size = self._size or max(1, default_batch_size(loaded, LARGE_FOR_IMAGES) // self.lanes.count)
        return loaded

    def outcomes(self, batch: _Batch) -> list[Outcome]:
        """Run one batch in the calling thread."""
        count = sum(not isinstance(read, InputError) for _, read in batch)
        if self.loaded is None or not count:
            return [
                failed(source, read, self.request, self.model, self.revision)
                for source, read in batch
                if isinstance(read, InputError)
            ]
        with self.lanes.one(count):
            return list(_finish(batch, self.request, self.loaded, self.model, self.revision, self._keep))


class _Reader:
    """Reads images to the size that the model needs.

    That is asked for when there is an image, since the answer takes an import of the model's family. The size for a
    model that is not on this machine is not known, and the model is not fetched
    before an image could be read: until then they are read small.
    """

    def __init__(self, able: "Callable[[], Capabilities | None]", keep: bool):
        self._able = able
        self._keep = keep  # whether full images are wanted too
        self._known = False
        self.side = PROBE

    def use_capabilities(self, able: "Capabilities | None") -> None:
        """From now on read for a model with these capabilities; None: they are not known."""
        self.side, self._known = PROBE if able is None else able.min_read_side, True

    def prefetch(self, source: "Source") -> "_Read | None":
        """One image, or None where there is one and its size is not known yet. Raises InputError."""
        if self._known:
            return self.read(source)
        if not isinstance(source, FrameSource):
            source.head()
        return None

    def take(self, source: "Source", future: "Future[_Read | None]") -> _Read:
        """What `prefetch` gave, read now if it was not read yet. Raises InputError."""
        return future.result() or self.read(source)

    def read(self, source: "Source") -> _Read:
        """One image. Raises InputError."""
        if not self._known:
            self.use_capabilities(self._able())
        from mmcli.media.identity import identity
        from mmcli.media.image import load_image

        started, side = time.perf_counter(), self.side
        known = identity(source)  # before it is read: what changes meanwhile is answered anew
        if isinstance(source, FrameSource):
            source.check_size(source.frame.image.width, source.frame.image.height)
            return _Read(source.frame.image, None, source.seconds, known, side)
        image = load_image(source, side=side)
        if isinstance(source, FoundSource):
            source.check_size(image.width, image.height)
        full = None
        if self._keep and image.image.size == (image.width, image.height):
            full = image
        elif self._keep and image.width * image.height <= HELD_PIXELS and side != PROBE:
            full = load_image(source)
        return _Read(image, full, time.perf_counter() - started, known, side)


def _full(source: "Source", read: _Read) -> "LoadedImage":
    """The image in full size: large ones are read again, that no more than one of them is there."""
    from mmcli.media.image import load_image

    if isinstance(source, FrameSource):
        return source.full()
    return read.full or load_image(source)


def _result(source: "Source", read: Callable[[], _Read]) -> _Read | InputError:
    """What reading gives; an error nobody foresaw is this input's failure too, not that of the whole run."""
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


def _finish(
    batch: "list[tuple[Source, _Read | InputError]]",
    request: Request,
    loaded: "Loaded",
    model: str,
    revision: str | None,
    keep: bool,
) -> Iterator[Outcome]:
    """Run one batch and hand out its outcomes, failed inputs in their places."""
    from mmcli.tasks.result import image_record

    remarks = tuple(request.remarks(loaded))
    good = [(source, read) for source, read in batch if not isinstance(read, InputError)]
    asked = iter([_asked(source, request) for source, _ in good])
    answers = iter(_answers(good, request, loaded))
    for source, read in batch:
        if isinstance(read, InputError):
            yield failed(source, read, request, model, revision)
        else:
            own, given, boxes_by = next(asked)
            record = image_record(
                own,
                next(answers),
                loaded,
                source.name,
                read.image,
                read.seconds,
                identity=read.identity,
                remarks=remarks,
                given=given,
                boxes_by=boxes_by,
            )
            if isinstance(source, FrameSource):
                record = replace(record, time=source.frame.time, frame=source.frame.number)
            full = partial(_full, source, read) if keep else None
            yield Outcome(source, record, full=full, remarks=remarks)


def _answers(good: "list[tuple[Source, _Read]]", request: Request, loaded: "Loaded") -> "Sequence[Completion]":
    """What the model answers about images."""
    if not good:
        return ()
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
