"""A video with what was found drawn in: what a frame that was looked at shows stands until the next one."""

import tempfile
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from mmcli.errors import InputError
from mmcli.media.video import VideoReader, open_video

if TYPE_CHECKING:
    import av
    from PIL import Image

    from mmcli.media.sources import Source
    from mmcli.output.schema import Record

VIDEO_SUFFIXES = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}  # → FFmpeg's name of the container
_TICK = Fraction(1, 60_000)  # of the clock: MPEG-4 has no finer one
_H264 = {"preset": "veryfast", "crf": "20", "rc-lookahead": "10", "threads": "2"}  # few frames wait in memory
_MPEG4 = {"qscale": "3", "flags": "+qscale", "global_quality": "354"}


@contextmanager
def drawn_video(
    video: "Source",
    records: "Sequence[Record]",
    draw: "Callable[[Image.Image, Record], Image.Image]",
    suffix: str,
) -> Iterator[tuple[BinaryIO, list[str]]]:
    """A temporary file with the drawn video, and what is to be said about it.

    `records` are those of its frames, in the order of time; `draw` draws one on an image. Audio is left out. Raises
    InputError where the video cannot be read or encoded, OSError where the machine has no room.
    """
    import av

    with tempfile.TemporaryFile() as file, open_video(video) as reader:
        try:
            encoder = _encode(file, reader, records, draw, VIDEO_SUFFIXES.get(suffix, "mp4"))
        except av.error.FFmpegError as error:
            what = f"{video.name} cannot be written as a video ({error.strerror})"
            raise InputError(what, "Draw on single frames instead: --overlay FOLDER with images") from error
        notes = [f"H.264 is not built into PyAV here, so it is written as {encoder}"] if encoder != "libx264" else []
        if reader.has_audio:
            notes.append("its audio is left out of the drawn video")
        file.seek(0)
        yield file, notes


def _encode(
    file: BinaryIO,
    reader: VideoReader,
    records: "Sequence[Record]",
    draw: "Callable[[Image.Image, Record], Image.Image]",
    form: str,
) -> str:
    """Write all frames, in the rate of the video → the encoder's name."""
    import av

    times = [record.time or 0.0 for record in records]
    early = 0.5 / float(reader.rate)
    encoder = _encoder()
    with av.open(file, "w", format=form) as container:
        stream: av.VideoStream | None = None
        last = -1
        for time, image in reader.images():
            place = bisect_right(times, time + early) - 1
            if place >= 0 and records[place].objects:
                image = draw(image, records[place])
            if stream is None:
                stream = _stream(container, encoder, reader.rate, image.size)
            last = max(round(time / _TICK), last + 1)  # never twice the same, whatever the video's own clock says
            container.mux(stream.encode(_frame(image, (stream.width, stream.height), last)))
            del image
        if stream is not None:
            container.mux(stream.encode(None))
    return encoder


def _encoder() -> str:
    import av

    return "libx264" if "libx264" in av.codecs_available else "mpeg4"


def _stream(
    container: "av.container.OutputContainer", encoder: str, rate: Fraction, size: tuple[int, int]
) -> "av.VideoStream":
    options = _H264 if encoder == "libx264" else _MPEG4
    stream: Any = container.add_stream(encoder, rate=rate.limit_denominator(1001), options=options)
    stream.width, stream.height = (max(side - side % 2, 2) for side in size)  # colours have half as many pixels
    stream.pix_fmt = "yuv420p"
    stream.codec_context.time_base = _TICK
    return cast("av.VideoStream", stream)


def _frame(image: "Image.Image", size: tuple[int, int], ticks: int) -> "av.VideoFrame":
    import av

    if image.size != size:
        same = abs(image.width - size[0]) < 2 and abs(image.height - size[1]) < 2
        image = image.crop((0, 0, *size)) if same else image.resize(size)
    matrix = "ITU709" if size[1] >= 720 else "ITU601"  # what players take for granted
    frame: av.VideoFrame = av.VideoFrame.from_image(image)
    frame = frame.reformat(format="yuv420p", dst_colorspace=matrix, dst_color_range="MPEG")
    frame.pts, frame.time_base = ticks, _TICK
    return frame
