"""Videos among the inputs of caption, detect and segment: which frames, and what is written of a video as a whole."""

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from mmcli.cli.folders import is_folder
from mmcli.cli.options import ImageOptions
from mmcli.cli.render import Renderer
from mmcli.errors import InputError, UsageError, WriteError, raise_if_interrupted
from mmcli.media.sources import IMAGE_EXTENSIONS, VIDEO_EXTENSIONS

if TYPE_CHECKING:
    from mmcli.batch.frames import FrameSource
    from mmcli.media.sampling import Sampling
    from mmcli.media.sources import Source
    from mmcli.output.schema import Record

_SUFFIXES = (".mp4", ".mov", ".mkv")  # of videos that can be written


def wants_videos(options: ImageOptions) -> bool:
    """Whether videos are to be looked for in folders too."""
    return options.interval is not None or options.frames is not None


def extensions(options: ImageOptions) -> frozenset[str]:
    """What is taken from folders: a film beside photographs only where frames are asked for, since it takes long."""
    return IMAGE_EXTENSIONS | VIDEO_EXTENSIONS if wants_videos(options) else IMAGE_EXTENSIONS


def sampling_of(options: ImageOptions) -> "Sampling":
    """Which frames of videos are asked for. UsageError where that is said twice."""
    from mmcli.media.sampling import Sampling

    return Sampling.given(options.interval, options.frames)


def holds_video(sources: "Sequence[Source]", options: ImageOptions) -> bool:
    """Whether there is a video among the inputs, as far as names and records tell: it counts as several inputs."""
    from mmcli.batch.found import FoundSource

    return wants_videos(options) or any(
        Path(source.relative.name).suffix.lower() in VIDEO_EXTENSIONS
        or (isinstance(source, FoundSource) and source.is_video)
        for source in sources
    )


def is_video_file(place: str | None) -> bool:
    """Whether a place for results is the file of a video."""
    return place is not None and not is_folder(place) and Path(place).suffix.lower() in _SUFFIXES


class VideoResults:
    """What becomes of videos as wholes when the records of their frames are there.

    `overlay` is the value of --overlay. Raises UsageError where it names the file of a video and there is none.
    """

    def __init__(
        self, renderer: Renderer, overlay: str | None, sources: "Sequence[Source]", others: Sequence[str]
    ) -> None:
        self._renderer = renderer
        self._records: list[Record] = []
        self._good = True
        self._overlay = None
        if overlay is None or not (is_video_file(overlay) or is_folder(overlay)):
            return
        from mmcli.batch.frames import may_be_video
        from mmcli.output.files import Destination
        from mmcli.output.ledger import Ledger

        if is_video_file(overlay) and len(sources) == 1 and not sources[0].problem and not may_be_video(sources[0]):
            raise UsageError(f"--overlay {overlay} is a video, and {sources[0].name} is none", "Call it .png")
        self._overlay = Destination(
            "--overlay",
            overlay,
            len(sources) > 1,
            dict.fromkeys(_SUFFIXES, ""),
            ".mp4",
            "input",
            kept=_SUFFIXES,
            overwrite=renderer.output.overwrite,
            ledger=renderer.ledger or Ledger(sources, others),
        )

    def add(self, source: "FrameSource", record: "Record", good: bool) -> bool:
        """Take the record of a frame, and with the last one write what is made of all.

        False if anything failed: of the whole video where the frame is its last. Raises WriteError.
        """
        self._good = self._good and good
        if self._overlay is not None or self._renderer.holds_videos or self._renderer.folder.sidecar:
            self._records.append(record)
        if not source.last:
            return good
        records, self._records = self._records, []
        good, self._good = self._good, True
        for write in (self._draw, self._write, self._beside):
            try:
                write(source, records)
            except (InputError, WriteError) as trouble:
                raise_if_interrupted(trouble)
                if isinstance(trouble, WriteError):
                    raise
                self._renderer.environment.fail(trouble, source.name)
                good = False
        return good

    def _draw(self, source: "FrameSource", records: "list[Record]") -> None:
        if self._overlay is None:
            return
        path = self._overlay.path(source.video)
        if not any(record.objects for record in records):
            self._renderer.not_written(records[-1], path, "nothing")
            return
        from mmcli.output.drafts import in_words
        from mmcli.output.video_overlay import drawn_video

        with (
            in_words(path),
            drawn_video(source.video, records, self._renderer.drawn, path.suffix.lower()) as (file, notes),
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            self._overlay.write(source.video, cast(bytes, data))
        if self._renderer.hides:
            notes = [*notes, "things are hidden where they were when a frame was looked at; what moves may be seen"]
        for note in notes:
            self._renderer.environment.note(f"mmcli: {source.name}: {note}")

    def _write(self, source: "FrameSource", records: "list[Record]") -> None:
        if self._renderer.holds_videos:
            self._renderer.video(source.video, records, source.end)

    def _beside(self, source: "FrameSource", records: "list[Record]") -> None:
        if self._renderer.folder.sidecar:
            self._renderer.beside(source.video, records)
