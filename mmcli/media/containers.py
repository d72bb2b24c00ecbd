"""Files and what FFmpeg makes of them: opening, tracks, lengths, packets; what is refused, in words."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from mmcli.errors import InputError
from mmcli.media.mixing import fits
from mmcli.media.naming import trouble
from mmcli.media.sample_widths import whole_places
from mmcli.media.sniff import RECORDINGS

if TYPE_CHECKING:
    import av

_READ = (  # FFmpeg's names of the containers that are opened: none that opens further files or addresses by itself
    "wav,w64,aiff,au,caf,flac,mp3,aac,loas,ac3,eac3,ogg,mov,matroska,webm,mpegts,mpeg,avi,asf,flv,amr,amrnb,amrwb,"
    "wv,ape,tta,dts,voc"
)
_HOPELESS = 2_000  # damaged packets from the beginning on after which nothing is waited for
_TRIES = 20  # errors of the container in a row before the rest is given up
_EXACT = ("mp3", "w64", "aiff", "au", "caf", "flac", "mov", "matroska", "asf")  # their length is stated, not estimated


@cache
def _quieten() -> None:
    """FFmpeg's own lines go nowhere, once: the setting is global."""
    import av.logging

    av.logging.set_level(None)


def open_container(file: BinaryIO, name: str) -> "av.container.InputContainer":
    """The recording in `file`; `name` is what errors call it. Raises InputError where there is none."""
    import av

    _quieten()
    # Tags that are no UTF-8 are common; from PyAV 19 on they are no error and there is nothing to set.
    lenient: Any = {"metadata_errors": "replace"} if hasattr(av.container.InputContainer, "metadata_errors") else {}
    try:
        return av.open(whole_places(file), container_options={"format_whitelist": _READ}, **lenient)
    except av.error.ArgumentError as error:  # a format that is known to FFmpeg and not read here
        raise InputError(f"{name} is not a recording of a known kind", RECORDINGS) from error
    except (av.error.FFmpegError, EOFError) as error:
        file.seek(0)
        if _begins_like_audio(file.read(16)):
            what = f"{name} is damaged or cut short: no audio in it can be found"
            raise InputError(what, "Get a fresh copy of the file") from error
        raise InputError(f"{name} is not a recording of a known kind", RECORDINGS) from error


def _begins_like_audio(head: bytes) -> bool:
    return (
        head.startswith((b"ID3", b"fLaC", b"OggS", b"\x1aE\xdf\xa3", b"FORM", b"caff", b"#!AMR"))
        or head.startswith((b"\xff\xf1", b"\xff\xf9", b"\xff\xfb", b"\xff\xf3"))
        or (head.startswith((b"RIFF", b"RF64")) and head[8:12] in (b"WAVE", b"AVI ", b""))
        or head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free")
    )


def audio_track(
    container: "av.container.InputContainer", name: str, notes: list[str], wanted: int | None = None
) -> "av.AudioStream":
    """The track to read, or the one `wanted`, from 1; `notes` says so where there are several.

    Raises InputError where there is none.
    """
    from av.stream import Discard

    tracks = container.streams.audio
    if not tracks:
        if container.streams.video:
            raise InputError(f"{name} is a video without an audio track", "Choose a file that has one")
        raise InputError(f"{name} has no audio track", RECORDINGS)
    if wanted is not None and not 1 <= wanted <= len(tracks):
        several = "one audio track" if len(tracks) == 1 else f"{len(tracks)} audio tracks"
        remedy = "Leave --track out" if len(tracks) == 1 else f"Choose --track 1 to {len(tracks)}"
        raise InputError(f"{name} has {several} and no track {wanted}", remedy)
    best = tracks[wanted - 1] if wanted is not None else container.streams.best("audio") or tracks[0]
    track = cast("av.AudioStream", best)
    if track.codec_context is None:
        what = f"{name} holds audio of a kind that cannot be decoded here"
        raise InputError(what, "Turn it into FLAC or MP3 first, with the program that made it")
    context = track.codec_context
    if context.name.startswith("pcm_") and not fits(context.sample_rate, context.channels):
        # Before a piece is decoded: one of 65,535 channels takes gigabytes.
        what = f"{name} is damaged or cut short: no audio in it can be decoded"
        raise InputError(what, "Get the file again from where it came")
    if len(tracks) > 1:
        language = track.metadata.get("language", "und")
        spoken = f" ({language})" if language.isalpha() and language != "und" else ""
        notes.append(f"audio track {tracks.index(track) + 1} of {len(tracks)}{spoken} is used")
    for stream in container.streams:
        if stream is not track:
            stream.discard = Discard.all  # the frames of a video are not even read where the container allows it
    return track


@dataclass
class Progress:
    """How far the decoding of a track came."""

    damaged: int = 0  # packets that could not be decoded, or not be used
    useful: bool = False  # whether any could be

    @property
    def notes(self) -> list[str]:
        """What the user should know of it, as phrases."""
        if not self.damaged:
            return []
        return ["1 damaged piece is left out" if self.damaged == 1 else f"{self.damaged} damaged pieces are left out"]


def decoded(
    container: "av.container.InputContainer", track: "av.AudioStream | av.VideoStream", name: str, progress: Progress
) -> Iterator[list[Any]]:
    """The frames of one packet after another, from here on; `progress` is kept by both sides. Raises InputError.

    A list is let go as soon as the next one is asked for, and its frames as soon as they are taken out of it.
    """
    import av

    packets, errors = container.demux(track), 0
    while errors < _TRIES and (progress.useful or progress.damaged < _HOPELESS):
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (av.error.FFmpegError, IndexError):  # IndexError: a track that PyAV did not see at the beginning
            errors += 1
            packets = container.demux(track)
            continue
        except OSError as error:
            raise trouble(name, error) from error
        errors = 0
        try:
            frames = packet.decode()
        except av.error.EOFError:
            return
        except (av.error.FFmpegError, MemoryError):  # MemoryError: of a size that only damage can announce
            progress.damaged += 1
            continue
        del packet
        yield frames
    progress.damaged += 1


def length(container: "av.container.InputContainer", track: "av.AudioStream | av.VideoStream") -> float | None:
    """Seconds from the container's beginning to the end of the track, None where it does not say."""
    if track.duration is not None and track.time_base is not None:
        begin = (track.start_time or 0) * track.time_base - Fraction(container.start_time or 0, 1_000_000)
        seconds = float(begin + track.duration * track.time_base)
    elif container.duration is not None:
        seconds = container.duration / 1_000_000
    else:
        return None
    return seconds if seconds > 0 else None


def stated_length(container: "av.container.InputContainer", track: "av.AudioStream", file: BinaryIO) -> float | None:
    """What `length` was when the recording was made, None where it is not written down.

    FFmpeg guesses the length of some from their bit rate, and takes that of a WAV from the size of the file.
    """
    kind = container.format.name.split(",")[0]
    seconds = length(container, track)
    if seconds is None or (kind == "mp3" and not _has_xing(file)):
        return None
    if kind == "wav":
        return seconds * _stretch_of_wav(file)
    return seconds if kind in _EXACT and (track.duration is not None or len(container.streams) == 1) else None


def _stretch_of_wav(file: BinaryIO) -> float:
    """How many times as long the samples of a WAV should be as they are; 1 where its header leaves the size open."""
    place = file.tell()
    try:
        size = file.seek(0, io.SEEK_END)
        at = 12
        for _ in range(100):
            file.seek(at)
            chunk = file.read(8)
            announced = int.from_bytes(chunk[4:], "little")
            if chunk[:4] == b"data" and 0 < announced < 0x7FFF0000:
                return max(announced / max(size - at - 8, 1), 1.0)
            if chunk[:4] == b"data" or len(chunk) < 8:
                break
            at += 8 + announced + announced % 2
        return 1.0
    finally:
        file.seek(place)


def _has_xing(file: BinaryIO) -> bool:
    """Whether the MP3 begins with a frame that counts the others (Xing's or LAME's)."""
    place = file.tell()
    try:
        file.seek(0)
        head = file.read(10)
        after = 0
        if head.startswith(b"ID3") and len(head) == 10:  # ID3v2.4, 6.2: four times 7 bits
            after = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
        file.seek(after)
        frame = file.read(256)
        return b"Xing" in frame or b"Info" in frame
    finally:
        file.seek(place)
