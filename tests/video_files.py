"""Videos for tests: a red square that moves a pixel a frame over a plain ground, made with PyAV."""

from fractions import Fraction
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
from file_sources import refused, source

from mmcli.media.sampling import Sampling
from mmcli.media.video import open_video

CODECS = {
    "mp4": "libx264", "mov": "mpeg4", "mkv": "libx264", "webm": "libvpx", "avi": "mpeg4", "mpg": "mpeg2video",
    "mts": "mpeg2video", "flv": "flv", "wmv": "wmv2",
}  # fmt: skip
SIZE = (64, 48)


def drawing(number: int, size=SIZE) -> np.ndarray:
    """One frame: [height, width, 3]."""
    pixels = np.full((size[1], size[0], 3), 40, np.uint8)
    x = number % (size[0] - 8)
    pixels[4:12, x : x + 8] = (250, 20, 20)
    return pixels


def number_of(image) -> float:
    """The number of the frame that an image shows, by the place of the square; up to 55."""
    rows = np.asarray(image, float)[5:11]
    redness = (rows[..., 0] - rows[..., 1] > 100).sum(0)
    return float((np.arange(len(redness)) * redness).sum() / redness.sum()) - 3.5


def save_video(path, frames: int = 20, *, rate: int = 10, size=SIZE, gop: int = 10, **to) -> Path:
    """Encode as the path's ending says; `to` may name a codec, a rotation, options of the container, and `audio`."""
    ending = Path(path).suffix[1:]
    form = "mpegts" if ending == "mts" else None
    with av.open(str(path), "w", format=form, options=to.get("options", {})) as container:
        video = container.add_stream(to.get("codec", CODECS[ending]), rate=rate)
        video.width, video.height, video.pix_fmt = *size, to.get("pixels", "yuv420p")
        video.codec_context.gop_size = gop
        if to.get("ratio"):
            video.codec_context.sample_aspect_ratio = to["ratio"]
        if to.get("rotation"):
            video.set_display_rotation(to["rotation"])
        audio = container.add_stream("aac", rate=8000, layout="mono") if to.get("audio") else None
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(drawing(number, size))
            frame.pts, frame.time_base = number, Fraction(1, rate)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
            silence.sample_rate, silence.pts = 8000, 0
            container.mux(audio.encode(silence))
            container.mux(audio.encode(None))
    return Path(path)


@cache
def video_bytes(ending: str, frames: int = 20, gop: int = 10) -> bytes:
    """The bytes of a video in a container, encoded once."""
    with TemporaryDirectory() as folder:
        return save_video(Path(folder) / f"a.{ending}", frames, gop=gop).read_bytes()


def frames_of(path, **sampling):
    """The sampled frames of a video, and its notes."""
    with open_video(source(path)) as reader:
        found = list(reader.sampled(Sampling(**sampling)))
        return found, reader.notes


def fails(path, **sampling) -> str:
    return refused(frames_of, path, **sampling)
