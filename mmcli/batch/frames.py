"""Videos among the inputs: each becomes its frames, one source a frame, decoded as they are asked for."""

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mmcli.batch.found import FoundSource
from mmcli.batch.outcome import unforeseen
from mmcli.errors import InputError, MmcliError, raise_if_interrupted, ran_out_of_memory
from mmcli.media.sniff import is_video
from mmcli.media.sources import VIDEO_EXTENSIONS, Source

if TYPE_CHECKING:
    from mmcli.media.image import LoadedImage
    from mmcli.media.sampling import Sampling
    from mmcli.media.video import Frame, VideoReader


@dataclass(frozen=True, kw_only=True)
class FrameSource(FoundSource):
    """One frame of a `video`, with its image. It is called like the video, and its place is below the video's."""

    video: Source
    frame: "Frame" = field(repr=False, compare=False)
    number: int
    last: bool  # of the frames that are taken of the video
    seconds: float  # that decoding took
    end: float = 0.0  # of the last one: where the video ends, in seconds

    def full(self) -> "LoadedImage":
        """The image in the size of the video, stretched if it is kept smaller."""
        image = self.frame.image
        return replace(image, image=image.image.resize((image.width, image.height)))


def may_be_video(source: Source) -> bool:
    """Whether a source is named like a video, or can be looked at at once and begins like one."""
    if source.problem is not None:
        return False
    if os.path.splitext(source.relative.name)[1].lower() in VIDEO_EXTENSIONS:
        return True
    # Addresses are fetched side by side later, and a named pipe may be long in coming.
    at_once = source.url is None and (source.content is not None or source.path is None or source.path.is_file())
    return at_once and is_video(source.head())


def holds_video(source: Source) -> bool:
    """Whether a source is a video; where it cannot be read, reading it tells again."""
    try:
        return may_be_video(source) and is_video(source.head())
    except Exception as error:
        raise_if_interrupted(error)
        return False


def with_frames(sources: Iterable[Source], sampling: "Sampling") -> Iterator[Source]:
    """The sources in their order, of videos the frames; where something was found already, those in which it was.

    A video that fails is a source with that problem, behind the frames that could be taken of it.
    """
    for source in sources:
        if isinstance(source, FoundSource):
            yield from _frames(source, sampling) if source.is_video else (source,)
            continue
        if holds_video(source):
            yield from _frames(source, sampling)
        else:
            yield source


def _frames(source: Source, sampling: "Sampling") -> Iterator[Source]:
    from mmcli.media.identity import identity
    from mmcli.media.video import open_video

    held: FrameSource | None = None  # whether it is the last one is known when the next one comes, or does not
    known = identity(source)
    found = list(source.frames) if isinstance(source, FoundSource) else None
    try:
        with open_video(source) as reader:
            started = time.perf_counter()
            frames = reader.sampled(sampling) if found is None else reader.at([at for at, _ in found])
            for place, frame in enumerate(frames):
                if held is not None:
                    yield held
                held = _source(source, frame, known, time.perf_counter() - started)
                if found is not None:
                    held = replace(held, records=found[place][1])
                del frame
                started = time.perf_counter()
            if held is not None:
                yield _ended(held, reader)
    except Exception as error:
        raise_if_interrupted(error)
        if (isinstance(error, MmcliError) and not isinstance(error, InputError)) or ran_out_of_memory(error):
            raise
        if held is not None:
            yield replace(held, last=True)
        trouble = error if isinstance(error, InputError) else unforeseen(source, error)
        yield replace(source, problem=trouble)


def _source(video: Source, frame: "Frame", known: str | None, seconds: float) -> FrameSource:
    place = video.relative.with_suffix("") / f"frame-{frame.number:06}"
    content = None if known is None else f"{known} at {frame.time:.6f}"
    return FrameSource(
        video.name, None, None, place, content=content, video=video, frame=frame, number=frame.number, last=False,
        seconds=seconds,
    )  # fmt: skip


def _ended(held: FrameSource, reader: "VideoReader") -> FrameSource:
    image = held.frame.image
    noted = replace(held.frame, image=replace(image, notes=(*image.notes, *reader.notes)))
    return replace(held, frame=noted, last=True, end=reader.end)
