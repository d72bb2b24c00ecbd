"""A video as single images: frames at chosen times, upright, RGB, one in memory at a time; quirks are dealt with here.

PyAV carries FFmpeg and all its codecs. Times are those a player shows: 0 is where the container begins.
"""

import errno
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from mmcli.errors import InputError
from mmcli.media.containers import Progress, decoded, length, open_container
from mmcli.media.image import LoadedImage
from mmcli.media.limits import HELD_PIXELS, UNKNOWN_STREAM, VIDEO_PIXELS
from mmcli.media.naming import empty, printable, trouble
from mmcli.media.sampling import Sampling
from mmcli.media.sniff import is_video

if TYPE_CHECKING:
    import av
    from PIL import Image

    from mmcli.media.sources import Source

_FASTEST = 1000  # frames a second; what announces more tells no rate
_USUAL_RATE = Fraction(25)
_LONGEST = 10_000_000.0  # seconds: what announces more tells no length
_LEAP = 1.0  # seconds ahead for which it seeks at first
_SHORTFALL = 1.0  # seconds that may be missing at the end before a video is said to be cut short
_DAMAGED = "Get a fresh copy of the file"


@dataclass(frozen=True)
class Frame:
    """One frame: its image, its `time` in seconds, and its `number`, from 0, by the video's average rate."""

    image: LoadedImage
    time: float
    number: int


class _Steady:
    """A file whose `seek` answers to impossible places with an error's number, as FFmpeg understands it.

    Damaged files send it there, and what is raised instead PyAV prints on stderr.
    """

    def __init__(self, file: BinaryIO):
        self._file = file
        self.read, self.tell = file.read, file.tell

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError):
            return -errno.EINVAL


def open_video(source: "Source") -> "VideoReader":
    """Open the video in `source`, which is to be closed. Raises InputError for what is none or cannot be read.

    Files are read from disk as they are decoded; pipes and addresses are read whole first.
    """
    name = printable(source.name)
    head = source.head()
    if not head:
        raise empty(source.name)
    if not is_video(head):
        raise InputError(f"{name} is not a video of a known kind", "MP4, MOV, MKV, WebM, AVI and MPEG are read")
    file = source.open(stream_limit=UNKNOWN_STREAM)
    try:
        return VideoReader(file, name)
    except OSError as error:
        file.close()
        raise trouble(source.name, error) from error
    except BaseException:
        file.close()
        raise


class VideoReader:
    """The frames of an open video, from its beginning to its end, once. A context, which closes it.

    `seconds` is its length as its container tells it, None where it does not; `rate` is in frames a second. Reading
    raises InputError where no image can be decoded and where one is too large; what is damaged is passed over, and
    `notes` says so when all was read.
    """

    def __init__(self, file: BinaryIO, name: str):
        self._file, self._name = file, name
        self.notes: list[str] = []
        self._progress, self._last = Progress(), -1.0
        self._leap = _LEAP
        self._open()
        try:
            self.rate = _rate(self._stream)
            declared = length(self._container, self._stream)
            self.seconds = declared if declared is not None and declared <= _LONGEST else None
            self.has_audio = bool(self._container.streams.audio)
            self._stated = self._stream.duration is not None or not self.has_audio  # else audio may go on longer
            self._ratio = self._stream.sample_aspect_ratio
        except BaseException:
            self._container.close()
            raise

    def _open(self) -> None:
        try:
            self._container = open_container(cast(BinaryIO, _Steady(self._file)), self._name)
        except InputError as error:
            what = f"{self._name} is damaged or cut short: no image in it can be found"
            raise InputError(what, _DAMAGED) from error
        try:
            self._stream = _image_track(self._container, self._name)
            self._origin = (self._container.start_time or 0) / 1_000_000
            self._frames = self._decoded()
        except BaseException:
            self._container.close()
            raise

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; may be called twice."""
        self._container.close()
        self._file.close()

    @property
    def end(self) -> float:
        """Where the video ends, in seconds, as it is announced or as far as it was read."""
        return max(self.seconds or 0.0, self._last + 1 / float(self.rate))

    # -- which frames --------------------------------------------------------------------------------------------

    def sampled(self, sampling: Sampling) -> Iterator[Frame]:
        """The first frame at or after each of the times, each once; those of more than HELD_PIXELS made smaller."""
        step = sampling.every
        if sampling.count is not None:
            step = max(self._length_by_reading() / sampling.count, 1e-6)
        early = min(0.5 / float(self.rate), step / 2)  # times are rounded in many containers
        due, given = 0.0, 0
        while given != sampling.count:
            found = next((one for one in self._frames if one[0] >= due - early), None)
            if found is None:
                break
            time, frame = found
            yield Frame(self._image(frame), time, round(time * self.rate))
            del found, frame
            given += 1
            due = step * (math.floor((time + early) / step) + 1)
            if due - time > self._leap and given != sampling.count:
                self._seek(due, time)
        else:
            return
        self._end()

    def at(self, times: Sequence[float]) -> Iterator[Frame]:
        """The frame of each of some times, which follow each other. InputError where the video ends before."""
        early, now = 0.5 / float(self.rate), 0.0  # times are rounded in records too
        for due in times:
            if _LONGEST > due > now + self._leap:
                self._seek(due, now)
            found = next((one for one in self._frames if _LONGEST > one[0] >= due - early), None)
            if found is None:
                raise InputError(f"{self._name} has no frame at {due:g} s", "Find things again in the video as it is")
            now, frame = found
            yield Frame(self._image(frame), now, round(now * self.rate))
            del found, frame

    def images(self) -> "Iterator[tuple[float, Image.Image]]":
        """All frames in full size, each with its time."""
        for time, frame in self._frames:
            yield time, self._image(frame, full=True).image
        self._end()

    def _end(self) -> None:
        if self._last < 0:
            if self._progress.damaged:
                raise InputError(f"{self._name} is damaged or cut short: no image in it can be decoded", _DAMAGED)
            raise InputError(f"{self._name} holds no image: it is a video of no length", "Record it again")
        self.notes += self._progress.notes
        if self._stated and self.seconds is not None and self.seconds - self._last > _SHORTFALL + 1 / self.rate:
            shortfall = f"{self._last:.1f} of the {self.seconds:.1f} s that it announces are there"
            self.notes.append(f"it is cut short: {shortfall}")

    def _length_by_reading(self) -> float:
        """The length, found by going through the packets where no header tells it."""
        if self.seconds is None:
            import av

            base = self._stream.time_base or Fraction(0)
            try:
                ends = [float(one.pts * base) for one in self._container.demux(self._stream) if one.pts is not None]
            except av.error.FFmpegError:
                ends = []
            self.seconds = max(ends, default=0.0) - self._origin + 1 / float(self.rate)
            self._rewind()
        return max(self.seconds, 0.0)

    # -- places --------------------------------------------------------------------------------------------------

    def _seek(self, due: float, now: float) -> None:
        """Go on at the keyframe before `due`, if there is one after `now`; if not, less is hoped for from then on."""
        import av

        place = (self._origin + due) / (self._stream.time_base or 1)
        try:
            self._container.seek(int(place), stream=self._stream)
        except av.error.FFmpegError:
            self._leap = math.inf  # where it stands now nobody knows
            self._rewind(now)
            return
        self._frames = self._decoded()
        first = next(self._frames, None)
        if first is None or first[0] > due:  # an index that misleads
            self._leap = math.inf
            self._rewind(now)
        elif first[0] <= now:
            self._leap *= 2
            self._frames = self._after(now, self._frames)
        else:
            self._frames = _with_first(first, self._frames)

    def _rewind(self, now: float = -1.0) -> None:
        """Open it again and go on after `now`: not every container that failed to seek can seek back."""
        self._container.close()
        self._file.seek(0)
        self._open()
        self._frames = self._after(now, self._frames)

    def _after(
        self, now: float, frames: "Iterator[tuple[float, av.VideoFrame]]"
    ) -> "Iterator[tuple[float, av.VideoFrame]]":
        return (one for one in frames if one[0] > now)

    # -- decoding ------------------------------------------------------------------------------------------------

    def _decoded(self) -> "Iterator[tuple[float, av.VideoFrame]]":
        """All that can be decoded from here on, each frame with its time."""
        clock = -1.0
        for frames in decoded(self._container, self._stream, self._name, self._progress):
            while frames:
                frame = frames.pop(0)
                _check_size(frame.width, frame.height, self._name)
                if frame.pts is not None and frame.time_base is not None:
                    clock = max(float(frame.pts * frame.time_base) - self._origin, 0.0)
                else:  # counted, so none may be passed over
                    clock, self._leap = clock + 1 / float(self.rate) if clock >= 0 else 0.0, math.inf
                self._last = max(self._last, clock)
                self._progress.useful = True
                yield clock, frame
                del frame

    def _image(self, frame: "av.VideoFrame", full: bool = False) -> LoadedImage:
        """A frame as it is displayed: square pixels, upright, in the colours of its own matrix."""
        from PIL import Image

        width, height = frame.width, frame.height
        if self._ratio and Fraction(1, 8) < self._ratio < 8:
            width = max(round(width * self._ratio), 1)
        _check_size(width, height, self._name)
        factor = 1
        while not full and width * height // factor**2 > HELD_PIXELS:
            factor *= 2
        more: dict[str, Any] = {}
        if frame.colorspace == 2 and frame.height >= 720:  # unspecified; players take HD for BT.709
            more["src_colorspace"] = "ITU709"
        if factor > 1:
            more["interpolation"] = "AREA"
        small = max(width // factor, 1), max(height // factor, 1)
        rgb = frame.reformat(*small, format="rgb24", **more)
        image = Image.fromarray(rgb.to_ndarray())
        turn = frame.rotation % 360
        if turn in (90, 180, 270):  # against the clock, as Pillow turns
            turns = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}
            image = image.transpose(turns[turn])
        return LoadedImage(image, *((height, width) if turn in (90, 270) else (width, height)))


def _with_first(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


def _check_size(width: int, height: int, name: str) -> None:
    if width * height > VIDEO_PIXELS:
        limit = VIDEO_PIXELS // 10**6
        what = f"{name} has frames of {width} × {height} pixels, more than the {limit} million that are read"
        raise InputError(what, "Make the video smaller")


def _image_track(container: "av.container.InputContainer", name: str) -> "av.VideoStream":
    """The track to see, nothing else being read. Raises InputError where there is none, or one too large."""
    from av.stream import Discard, Disposition

    tracks = [one for one in container.streams.video if not one.disposition & Disposition.attached_pic]
    if not tracks:
        if container.streams.audio:
            what = f"{name} is a recording without images"
            raise InputError(what, "What is said in it writes down: mmcli transcribe")
        raise InputError(f"{name} has no track of images", _DAMAGED)
    best = container.streams.best("video")
    track = best if best in tracks else tracks[0]
    context = track.codec_context
    if context is None:
        what = f"{name} is damaged or cut short, or its images are of a kind that cannot be decoded here"
        raise InputError(what, "Turn it into MP4 first, with the program that made it")
    _check_size(context.width or 0, context.height or 0, name)
    context.options = {"max_pixels": str(VIDEO_PIXELS)}  # sizes may change on the way
    context.thread_count = 2
    for stream in container.streams:
        if stream is not track:
            stream.discard = Discard.all
    return track


def _rate(track: "av.VideoStream") -> Fraction:
    for rate in (track.average_rate, track.guessed_rate):
        if rate and Fraction(1, 1000) <= rate <= _FASTEST:
            return Fraction(rate)
    return _USUAL_RATE
