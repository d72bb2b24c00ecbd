"""Samples narrower than their places, in headers written by hand: a tone is a tone."""

import struct

import numpy as np
import pytest
from audio_files import load

RATE = 16_000
TONE = 0.5 * np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE)
SUBFORMAT = bytes.fromhex("000000001000800000aa00389b71")
INTEGERS, FLOATS = b"\x01\x00", b"\x03\x00"


def integers(bits: int, place: int, order: str = "<") -> bytes:
    """The tone in `bits` bits at the upper end of `place` bits."""
    values = np.round(TONE * (2 ** (bits - 1) - 1)).astype("<i8") << (place - bits)
    parts = values.view(np.uint8).reshape(-1, 8)[:, : place // 8]
    return (parts if order == "<" else parts[:, ::-1]).tobytes()


def extensible(data: bytes, place: int, valid: int, kind: bytes = INTEGERS) -> bytes:
    size = place // 8
    return struct.pack("<HHIIHHHHI", 0xFFFE, 1, RATE, RATE * size, size, place, 22, valid, 4) + kind + SUBFORMAT


def riff(form: bytes, data: bytes, name: bytes = b"RIFF", before: bytes = b"") -> bytes:
    body = b"WAVE" + before + b"fmt " + struct.pack("<I", len(form)) + form
    body += b"data" + struct.pack("<I", len(data)) + data
    return name + struct.pack("<I", len(body)) + body


def wav(bits: int, place: int) -> bytes:
    data = integers(bits, place)
    return riff(extensible(data, place, bits), data)


def plain(bits: int, place: int) -> bytes:
    data, size = integers(bits, place), place // 8
    return riff(struct.pack("<HHIIHH", 1, 1, RATE, RATE * size, size, bits), data)


def floats(kind: str, valid: int) -> bytes:
    data = TONE.astype(kind).tobytes()
    return riff(extensible(data, 8 * np.dtype(kind).itemsize, valid, FLOATS), data)


def rf64(bits: int, place: int) -> bytes:
    data = integers(bits, place)
    sizes = b"ds64" + struct.pack("<IQQQI", 28, len(data) + 100, len(data), 2 * RATE, 0)
    return riff(extensible(data, place, bits), data, b"RF64", sizes)


def w64(bits: int, place: int) -> bytes:
    data, tail = integers(bits, place), bytes.fromhex("f3acd3118cd100c04f8edb8a")
    form = extensible(data, place, bits)
    body = b"wave" + tail + b"fmt " + tail + struct.pack("<Q", 24 + len(form)) + form
    body += b"data" + tail + struct.pack("<Q", 24 + len(data)) + data
    return b"riff" + bytes.fromhex("2e91cf11a5d628db04c10000") + struct.pack("<Q", 24 + len(body)) + body


def caf(bits: int, place: int, order: str) -> bytes:
    data = integers(bits, place, order)
    form = struct.pack(">d4sIIIII", RATE, b"lpcm", 2 * (order == "<"), place // 8, 1, 1, bits)
    head = b"caff" + struct.pack(">HH", 1, 0) + b"desc" + struct.pack(">q", len(form)) + form
    return head + b"data" + struct.pack(">qI", len(data) + 4, 0) + data


def aiff(bits: int, place: int) -> bytes:
    data = integers(bits, place, ">")
    rate = struct.pack(">HQ", 16383 + 13, RATE << 50)
    body = b"AIFFCOMM" + struct.pack(">IhIh", 18, 1, 2 * RATE, bits) + rate
    body += b"SSND" + struct.pack(">III", len(data) + 8, 0, 0) + data
    return b"FORM" + struct.pack(">I", len(body)) + body


WIDTHS = [(24, 32), (20, 32), (16, 32), (8, 32), (16, 24), (20, 24), (12, 16), (8, 16), (24, 24), (32, 32), (16, 16)]
FILES = {f"wav {bits} in {place}": wav(bits, place) for bits, place in WIDTHS}
FILES |= {
    f"plain wav {bits} in {place}": plain(bits, place) for bits, place in ((24, 32), (20, 32), (12, 16), (20, 24))
}
FILES |= {
    f"wav float {valid} in {kind}": floats(kind, valid) for kind, valid in (("<f4", 24), ("<f4", 32), ("<f8", 53))
}
FILES |= {"rf64 24 in 32": rf64(24, 32), "w64 24 in 32": w64(24, 32), "w64 20 in 24": w64(20, 24)}
FILES |= {
    f"caf {order} {bits} in {place}": caf(bits, place, order)
    for order in "<>"
    for bits, place in ((24, 32), (20, 32), (16, 32), (20, 24), (12, 16), (24, 24))
}
FILES |= {f"aiff {bits} in {place}": aiff(bits, place) for bits, place in ((12, 16), (20, 24), (28, 32))}


@pytest.mark.parametrize("name", FILES)
def test_a_tone_is_a_tone(name, tmp_path):
    path = tmp_path / "tone.bin"
    path.write_bytes(FILES[name])
    samples, audio = load(path)
    assert audio.notes == () and len(samples) == pytest.approx(len(TONE), abs=32)
    np.testing.assert_allclose(samples[500:-500], TONE[500 : len(samples) - 500], atol=0.01)


def test_floats_under_a_header_of_integers_stay_floats(tmp_path):
    """Cool Edit's: 24 bits in places of 32 that are float32 of the range of 24 bits."""
    data = (TONE * 2**23).astype("<f4").tobytes()
    (tmp_path / "tone.wav").write_bytes(riff(struct.pack("<HHIIHH", 1, 1, RATE, RATE * 4, 4, 24), data))
    samples, _ = load(tmp_path / "tone.wav")
    assert np.corrcoef(samples[500:-500], TONE[500 : len(samples) - 500])[0, 1] > 0.99
