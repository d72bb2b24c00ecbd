"""What a file is, from its first bytes: never from its name, which people change. Imports nothing heavy."""

import codecs
import re

_FTYP_KINDS = (  # brands of the ISO container, the more telling first: many files carry several
    ("AVIF", (b"avif", b"avis")),
    ("HEIF", (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")),
)

_IMAGES = (  # (offset, magic, Pillow's name of the format)
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"GIF87a", "GIF"),
    (0, b"GIF89a", "GIF"),
    (8, b"WEBP", "WEBP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),  # BigTIFF
    (0, b"MM\0+", "TIFF"),
    (0, b"BM", "BMP"),
    (0, b"\0\0\0\x0cjP  ", "JPEG2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG2000"),
)

RAW = "a camera raw file, of which only the preview could be read here"
DEVELOP = "Develop it into a JPEG or TIFF first, for instance with darktable-cli"

_OTHERS = (  # (offset, magic, what it is, what to do)
    (0, b"%!PS", "PostScript, not a picture", "Turn it into a PNG first, for instance with Ghostscript"),
    (0, b"8BPS", "a Photoshop document", "Export it as PNG first"),
    (0, b"FUJIFILMCCD-RAW", RAW, DEVELOP),
    (0, b"IIU\0", RAW, DEVELOP),  # Panasonic and Leica
    (0, b"IIRO", RAW, DEVELOP),  # Olympus
    (0, b"IIRS", RAW, DEVELOP),
    (0, b"MMOR", RAW, DEVELOP),
    (0, b"FOVb", RAW, DEVELOP),  # Sigma
    (0, b"\0MRM", RAW, DEVELOP),  # Minolta
    (6, b"HEAPCCDR", RAW, DEVELOP),  # Canon, before 2004
    (4, b"ftypcrx ", RAW, DEVELOP),  # Canon, since 2018
    (0, b"\xff\x0a", "a JPEG XL picture, which is not read here", "Turn it into a PNG first, for instance with djxl"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL picture, which is not read here", "Turn it into a PNG first, with djxl"),
    (8, b"WAVE", "audio, not a picture", "audio"),
    (0, b"ID3", "audio, not a picture", "audio"),
    (0, b"fLaC", "audio, not a picture", "audio"),
    (0, b"OggS", "audio, not a picture", "audio"),
    (4, b"ftypM4A", "audio, not a picture", "audio"),
    (8, b"AVI ", "a video, not a picture", "video"),
    (4, b"ftyp", "a video, not a picture", "video"),
    (4, b"moov", "a video, not a picture", "video"),
    (0, b"\x1aE\xdf\xa3", "a video, not a picture", "video"),
    (0, b"PK\x03\x04", "a ZIP archive or an office document, not a picture", "Take the pictures out of it first"),
    (0, b"\x1f\x8b", "compressed with gzip", "Unpack it first"),
    (0, b"version https://git-lfs", "a Git LFS pointer, not the picture itself", "Fetch the file with: git lfs pull"),
)

_VIDEO = "Take a frame out of it first, for instance with: ffmpeg -i VIDEO -frames:v 1 frame.png"
_SPEECH = "To write down what is said in it: mmcli transcribe"
_SIGHT = "To describe what it shows: mmcli caption"
_IMAGE_NAMES = {"HEIF": "HEIC", "WEBP": "WebP", "JPEG2000": "JPEG 2000", "PPM": "PNM"}
RECORDINGS = "WAV, FLAC, MP3, M4A, AAC, Ogg, Opus, WebM and the audio of MP4, MOV and MKV videos are read"
_RECORD = re.compile(r'\s*\{"schema": ?\d+, ?"task": ?"')  # how a record of ours begins
_RECORDS_READ_BY = "mmcli segment --from-boxes outlines the boxes in it; mmcli crop and mmcli report read it too"
READABLE = "JPEG, PNG, WebP, GIF, TIFF, BMP, AVIF, HEIC, JPEG 2000 and PNM are read"


def image_format(data: bytes) -> str | None:
    """Pillow's name of the image format that `data` begins like ("JPEG", "HEIF", …), or None."""
    if data[4:8] == b"ftyp":
        length = int.from_bytes(data[:4], "big")
        brands = [data[8:12], *(data[at : at + 4] for at in range(16, min(length, len(data), 256), 4))]
        for kind, known in _FTYP_KINDS:
            if any(brand in known for brand in brands):
                return kind
        return None
    for offset, magic, kind in _IMAGES:
        if data.startswith(magic, offset) and (kind != "WEBP" or data.startswith(b"RIFF")):
            return kind
    if data[:1] == b"P" and data[1:2] in b"123456f" and data[2:3].isspace():
        return "PPM"
    return None


def describe(data: bytes) -> tuple[str, str]:
    """For data that is no image: what it is ("a PDF, …"), and what the user can do about it."""
    head = data[:4096]
    if b"%PDF-" in head[:1024]:
        return "a PDF, not a picture", "Turn its pages into pictures first, for instance with: pdftoppm -png"
    for offset, magic, what, do in _OTHERS:
        if head.startswith(magic, offset):
            return what, {"video": _VIDEO, "audio": _SPEECH}.get(do, do)
    text = _text(head, len(head) == len(data))
    if text is None:
        if _is_audio_frame(data):
            return "audio, not a picture", _SPEECH
        return "not a picture of a known kind", READABLE
    lower = text.lower()
    if "<svg" in lower:
        return "an SVG drawing, not a picture of pixels", "Turn it into a PNG first, for instance with rsvg-convert"
    if "<html" in lower or "<!doctype html" in lower:
        return "a web page, not a picture", "Give the address of the picture itself"
    if _RECORD.match(text):
        return "a file of results, not a picture", _RECORDS_READ_BY
    return "text, not a picture", READABLE


def is_audio(head: bytes) -> bool:
    """Whether data begins like a recording, or like a video: of a video the audio is what is read here."""
    if image_format(head) is not None:
        return False
    if head.startswith((b"#!AMR", b"caff", b"FORM", b".snd")) or _is_audio_frame(head):
        return True
    kinds = ("audio, not a picture", "a video, not a picture")
    return any(head.startswith(magic, offset) and what in kinds for offset, magic, what, _ in _OTHERS)


def is_video(head: bytes) -> bool:
    """Whether data begins like a container of videos, which may turn out to hold nothing but audio."""
    if image_format(head) is not None or head.startswith(b"ftypM4A", 4):
        return False
    if head.startswith(b"OggS"):
        return b"\x80theora" in head
    if head.startswith((b"\0\0\x01\xba", b"FLV\x01", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11")):  # MPEG, FLV, ASF
        return True
    if any(head[at : at + 1] == head[at + step : at + step + 1] == b"G" for at, step in ((0, 188), (4, 192))):
        return True  # the packets of an MPEG transport stream
    return any(head.startswith(magic, offset) for offset, magic, _, do in _OTHERS if do == "video")


def _is_audio_frame(data: bytes) -> bool:
    """An MP3 or AAC frame, which is how files without tags begin."""
    return len(data) > 2 and data[0] == 0xFF and data[1] in (0xFB, 0xFA, 0xF3, 0xF2, 0xF1, 0xF9)


def describe_silent(head: bytes) -> tuple[str, str] | None:
    """For data that begins like something without audio: what it is, and what the user can do; None for the rest."""
    kind = image_format(head)
    if kind is not None:
        return f"a {_IMAGE_NAMES.get(kind, kind)} picture, not a recording", _SIGHT
    if b"%PDF-" in head[:1024]:
        return "a PDF, not a recording", RECORDINGS
    if head.startswith(b"PK\x03\x04"):
        return "a ZIP archive or an office document, not a recording", "Take the recordings out of it first"
    if head.startswith(b"\x1f\x8b"):
        return "compressed with gzip", "Unpack it first"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the recording itself", "Fetch the file with: git lfs pull"
    if head.startswith(b"MThd"):
        return "MIDI, notes and not audio", "Play it into a recording first, for instance with: fluidsynth -F FILE.wav"
    if head.startswith(b"#!AMR"):  # the one magic of audio that reads as text
        return None
    text = _text(head[:4096], len(head) < 4096)
    if text is None:
        return None
    lower = text.lower()
    if "<html" in lower or "<!doctype html" in lower:
        return "a web page, not a recording", "Give the address of the recording itself"
    if lower.startswith("#extm3u") or lower.startswith("[playlist]"):
        return "a playlist, not a recording", "Name the recordings that it lists"
    if _RECORD.match(text):
        return "a file of results, not a recording", _RECORDS_READ_BY
    return "text, not a recording", RECORDINGS


def _text(head: bytes, whole: bool) -> str | None:
    """`head` as text, None if it is none; unless it is the `whole` file, its end may cut a character in two."""
    encoding = "utf-16" if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(head, final=whole)
    except UnicodeDecodeError:
        return None
    return None if any(ord(char) < 32 and char not in "\t\n\r\f\v\x1b" for char in text) else text
