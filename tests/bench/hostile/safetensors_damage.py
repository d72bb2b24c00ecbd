"""Safetensors files that lie about themselves, or hold what their readers do not expect."""

import json
import random
from typing import Any

Entries = dict[str, dict[str, Any]]
TYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "I64": 8, "I32": 4, "I8": 1, "U8": 1, "BOOL": 1}


def damage_weights(rng: random.Random, data: bytes) -> bytes:
    """A safetensors file changed in its header, in what lies behind it, or in both so that they fit again."""
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    way = rng.choice(
        (_lie, _lie, _lie, _other_length, _other_type, _other_names, _other_numbers, _tail, _many, _packed)
    )
    return way(rng, header, body)


def whole(header: Any, body: bytes, length: int | None = None, text: str | None = None) -> bytes:
    """The file of a header and what lies behind it; `length` or `text` are a lie."""
    text = json.dumps(header) if text is None else text
    coded = text.encode("utf-8", "surrogatepass")
    return (len(coded) if length is None else length).to_bytes(8, "little") + coded + body


def _lie(rng: random.Random, header: Entries, body: bytes) -> bytes:
    """An entry that says something else than the file holds."""
    name = rng.choice([key for key in header if key != "__metadata__"])
    entry = header[name]
    start, stop = entry["data_offsets"]
    wrong = rng.choice(
        (
            {"dtype": rng.choice((*TYPES, "F4", "X", "", None, 3, ["F32"]))},
            {
                "shape": rng.choice(
                    (
                        [],
                        [0],
                        [1 << 40],
                        [1 << 63, 1 << 63],
                        [-1],
                        [1.5],
                        ["1"],
                        None,
                        "x",
                        [1] * 1000,
                        [[1]],
                        [True],
                        entry["shape"][::-1],
                        [*entry["shape"], 1],
                    )
                )
            },
            {
                "data_offsets": rng.choice(
                    (
                        [0, 0],
                        [stop, start],
                        [start, stop + 4],
                        [start + 4, stop + 4],
                        [-4, 0],
                        [0, 1 << 62],
                        [0, 1 << 70],
                        [0.0, 4.0],
                        [start],
                        None,
                        "x",
                        [start, stop, stop],
                        [None, None],
                    )
                )
            },
            {"extra": [1] * 1000},
        )
    )
    entry |= wrong
    if rng.random() < 0.1:
        entry.pop(rng.choice(list(entry)))
    if rng.random() < 0.1:
        header["__metadata__"] = rng.choice((None, [], "x", {"a": 1}, {"a": {"b": "c"}}, {"a": "x" * 1_000_000}))
    if rng.random() < 0.1:
        header[name] = rng.choice((None, [], "x", 1, [entry]))
    if rng.random() < 0.1:  # a key that comes twice
        return whole(header, body, text=json.dumps(header)[:-1] + f", {json.dumps(name)}: {json.dumps(entry)}}}")
    return whole(header, body)


def _other_length(rng: random.Random, header: Entries, body: bytes) -> bytes:
    lengths = (0, 1, 2, 7, 1 << 20, 100_000_001, 9 << 30, 1 << 63, (1 << 64) - 1)
    return whole(header, body, length=rng.choice(lengths))


def _rebuilt(header: Entries, parts: dict[str, bytes]) -> bytes:
    """Entries with the offsets that belong to the parts."""
    end = 0
    for name, part in parts.items():
        header[name]["data_offsets"] = [end, end + len(part)]
        end += len(part)
    return whole({name: header[name] for name in parts}, b"".join(parts.values()))


def _parts(header: Entries, body: bytes) -> dict[str, bytes]:
    found = {name: entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"}
    return {name: body[start:stop] for name, (start, stop) in found.items()}


def _other_type(rng: random.Random, header: Entries, body: bytes) -> bytes:
    """A tensor of another type, with as many numbers as before."""
    parts = _parts(header, body)
    for name in rng.sample(list(parts), min(len(parts), rng.choice((1, 1, 3, 1000)))):
        kind = rng.choice(list(TYPES))
        count = len(parts[name]) // TYPES[header[name]["dtype"]]
        header[name]["dtype"] = kind
        parts[name] = bytes(count * TYPES[kind])
    return _rebuilt(header, parts)


def _other_names(rng: random.Random, header: Entries, body: bytes) -> bytes:
    """Tensors that are gone, new, or called otherwise."""
    parts = _parts(header, body)
    for name in rng.sample(list(parts), min(len(parts), rng.choice((1, 1, 3)))):
        other = rng.choice(
            (None, "", ".", "..", "x", name + ".x", "x." + name, "\x1b[2J" + name, name * 20, "a" * 100_000, "\ud800")
        )
        if other is None:
            del parts[name]
        else:
            header[other], parts[other] = header[name].copy(), parts[name]
            if rng.random() < 0.5 and other != name:
                del parts[name]
    return _rebuilt(header, parts)


def _other_numbers(rng: random.Random, header: Entries, body: bytes) -> bytes:
    """A tensor, or all, of NaN, of noise, or of zeros."""
    parts = _parts(header, body)
    for name in rng.sample(list(parts), min(len(parts), rng.choice((1, 3, 10_000)))):
        filling = rng.choice((b"\xff", b"\0", b"\x7f", b"\x80", rng.randbytes(97)))
        parts[name] = (filling * (len(parts[name]) // len(filling) + 1))[: len(parts[name])]
    return _rebuilt(header, parts)


def _tail(rng: random.Random, header: Entries, body: bytes) -> bytes:
    return whole(header, rng.choice((body[:-1], body[: len(body) // 2], body + b"\0", body + body, b"")))


def _many(rng: random.Random, header: Entries, body: bytes) -> bytes:
    """A header of a hundred thousand tensors of nothing, or of one value too many, or one too deep."""
    if rng.random() < 0.3:
        return whole(header, body, text='{"a": ' * rng.choice((100, 100_000)) + "1" + "}" * 100)
    count = rng.choice((100_000, 400_000))
    nothing = {f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [len(body), len(body)]} for i in range(count)}
    return whole(header | nothing, body)


def _packed(rng: random.Random, header: Entries, body: bytes) -> bytes:
    """Weights as bytes with a factor for each row, not all of which fit."""
    parts = _parts(header, body)
    for name in rng.sample(list(parts), min(len(parts), rng.choice((1, 3)))):
        shape = header[name]["shape"]
        if len(shape) < 2:
            continue
        count = len(parts[name]) // TYPES[header[name]["dtype"]]
        header[name] = {"dtype": "I8", "shape": shape}
        parts[name] = bytes(count)
        rows = rng.choice((shape[0], shape[0], shape[0] + 1, 0))
        kind = rng.choice(("F32", "F16", "I64", "BOOL"))
        if rng.random() < 0.8:
            header[name + "_scale"] = {"dtype": kind, "shape": rng.choice(([rows], [rows, 1]))}
            parts[name + "_scale"] = bytes(rows * TYPES[kind])
    return _rebuilt(header, parts)
