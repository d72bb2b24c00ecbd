"""The text in many images, read by a library where no model is named: prefetched, in order, no failure stops it."""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING

from mmcli.batch.outcome import Outcome, unforeseen
from mmcli.batch.prefetch import prefetch
from mmcli.errors import InputError, MmcliError, raise_if_interrupted, ran_out_of_memory
from mmcli.output.schema import Record
from mmcli.tasks.reader import SIDE, Reader, read_record
from mmcli.tasks.reading_library import LIBRARY

if TYPE_CHECKING:
    from mmcli.media.image import LoadedImage
    from mmcli.media.sources import Source
    from mmcli.tasks.read import ReadRequest

PREFETCHED = 4  # images decoded and waiting, at most

Decoded = tuple["LoadedImage", float, str | None]  # with the seconds that it took, and what tells the file apart


def run(sources: "Iterable[Source]", request: "ReadRequest", reader: Reader) -> Iterator[Outcome]:
    """One outcome for each source, in their order; `full` of each reads its image again in full size.

    Raises ModelError where the library cannot be used; the outcomes until then have been handed out.
    """
    for source, future in prefetch(_decoded, sources, depth=PREFETCHED):
        yield _outcome(source, partial(_record, source, future, request, reader), request)


def _decoded(source: "Source") -> Decoded:
    from mmcli.media.identity import identity
    from mmcli.media.image import load_image

    started = time.perf_counter()
    known = identity(source)  # before it is read: what changes meanwhile is answered anew
    return load_image(source, side=SIDE), time.perf_counter() - started, known


def _record(source: "Source", future: "Future[Decoded]", request: "ReadRequest", reader: Reader) -> Record:
    image, seconds, known = future.result()
    return read_record(request, reader, source.name, image, seconds, known)


def _outcome(source: "Source", record: Callable[[], Record], request: "ReadRequest") -> Outcome:
    from mmcli.media.image import load_image

    try:
        return Outcome(source, record(), full=partial(load_image, source))
    except Exception as error:
        raise_if_interrupted(error)
        if not isinstance(error, InputError):
            if isinstance(error, MmcliError) or ran_out_of_memory(error):
                raise
            error = unforeseen(source, error)
        failed = Record(task=request.task, source=source.name, model=LIBRARY, error=str(error))
        return Outcome(source, failed, error)
