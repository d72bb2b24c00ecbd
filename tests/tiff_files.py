"""TIFF files by hand, of every layout: planes, tiles, sample types, several pages, SubIFDs, BigTIFF."""

import struct
import zlib

import numpy as np

_TYPES = {"H": (3, 2), "I": (4, 4), "Q": (16, 8), "B": (1, 1), "s": (2, 1), "2I": (5, 8)}


def page(
    samples: np.ndarray,
    *,
    photometric: int | None = None,
    planar: int = 1,
    tile: int | None = None,
    deflate: bool = False,
    predictor: int = 1,
    order: str = "<",
    rows: int | None = None,
    bits: int | None = None,
    packed: bytes | None = None,
    **tags,
) -> dict:
    """What one page needs for `tiff_file`: samples are [height, width] or [height, width, bands].

    `tags` are further ones, `t338=[2]`, as shorts; a value of None leaves a tag out. `packed` replaces the bytes.
    """
    samples = samples if samples.ndim == 3 else samples[..., None]
    height, width, bands = samples.shape
    kind = {"u": 1, "i": 2, "f": 3}[samples.dtype.kind]
    planes = [samples] if planar == 1 else [samples[..., band : band + 1] for band in range(bands)]
    pieces = [piece for plane in planes for piece in _pieces(plane, tile, rows or height)]
    if predictor == 2:
        pieces = [np.concatenate([p[:, :1], np.diff(p, axis=1)], 1) for p in pieces]
    data = [piece.astype(samples.dtype.newbyteorder(order)).tobytes() for piece in pieces]
    data = [packed] if packed is not None else data
    entries = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [bits or samples.itemsize * 8] * bands),
        259: ("H", [8 if deflate else 1]),
        262: ("H", [(2 if bands >= 3 else 1) if photometric is None else photometric]),
        277: ("H", [bands]),
        284: ("H", [planar]),
        317: ("H", [predictor]),
        339: ("H", [kind] * bands),
    }
    if tile:
        entries |= {322: ("I", [tile]), 323: ("I", [tile])}
    else:
        entries[278] = ("I", [rows or height])
    for name, value in tags.items():
        entries[int(name[1:])] = ("I" if name == "t254" else "H", value)
    entries = {tag: entry for tag, entry in entries.items() if entry[1] is not None}
    return {"entries": entries, "tiled": bool(tile), "data": [zlib.compress(d) if deflate else d for d in data]}


def _pieces(plane, tile, rows):
    height, width, _ = plane.shape
    if not tile:
        return [plane[top : top + rows] for top in range(0, height, rows)]
    full = np.zeros((-(-height // tile) * tile, -(-width // tile) * tile, plane.shape[2]), plane.dtype)
    full[:height, :width] = plane
    return [
        full[top : top + tile, left : left + tile]
        for top in range(0, full.shape[0], tile)
        for left in range(0, full.shape[1], tile)
    ]


def tiff_file(*pages: dict, order: str = "<", big: bool = False, sub: dict[int, list[dict]] | None = None) -> bytes:
    """The bytes of a TIFF of these pages; `sub` gives the SubIFDs of a page by its number."""
    mark = {"<": b"II", ">": b"MM"}[order]
    header = mark + struct.pack(f"{order}HHHQ", 43, 8, 0, 0) if big else mark + struct.pack(f"{order}HI", 42, 0)
    out = bytearray(header)
    link = len(header) - (8 if big else 4)  # where the offset of the next page goes
    for number, one in enumerate(pages):
        below = [_write(out, low, order, big)[0] for low in (sub or {}).get(number, [])]
        entries = one["entries"] | ({330: ("Q" if big else "I", below)} if below else {})
        at, end = _write(out, one | {"entries": entries}, order, big)
        struct.pack_into(f"{order}{'Q' if big else 'I'}", out, link, at)
        link = end
    return bytes(out)


def _write(out: bytearray, one: dict, order: str, big: bool) -> tuple[int, int]:
    """Append a page → where its IFD is, and where the offset of the next one goes in it."""
    places = []
    for data in one["data"]:
        out.extend(b"\0" * (len(out) % 2))
        places.append(len(out))
        out.extend(data)
    wide, offsets, counts = "Q" if big else "I", *((324, 325) if one["tiled"] else (273, 279))
    entries = one["entries"] | {offsets: (wide, places), counts: (wide, [len(d) for d in one["data"]])}
    rows = []
    for tag, (kind, values) in sorted(entries.items()):
        number, _ = _TYPES[kind]
        value = bytes(values) if kind in "Bs" else struct.pack(f"{order}{len(values)}{kind}", *values)
        if len(value) > (8 if big else 4):
            out.extend(b"\0" * (len(out) % 2))
            value, place = struct.pack(f"{order}{wide}", len(out)), value
            out.extend(place)
        head = struct.pack(f"{order}HH{wide}", tag, number, len(values))
        rows.append(head + value.ljust(8 if big else 4, b"\0"))
    out.extend(b"\0" * (len(out) % 2))
    at = len(out)
    out.extend(struct.pack(f"{order}{'Q' if big else 'H'}", len(rows)) + b"".join(rows))
    end = len(out)
    out.extend(bytes(8 if big else 4))
    return at, end
