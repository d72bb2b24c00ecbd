"""Ways to damage bytes: what transfer, disks, buggy writers and attackers do to a file. All chance comes from `rng`."""

import random
from collections.abc import Callable, Sequence

EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
HEAD = 512  # bytes in which most formats keep sizes, counts and offsets


def truncate(data: bytes, rng: random.Random) -> bytes:
    """Cut short, anywhere or a few bytes before the end."""
    keep = rng.randrange(len(data)) if rng.random() < 0.7 else max(len(data) - rng.randint(1, 16), 0)
    return data[:keep]


def flip(data: bytes, rng: random.Random) -> bytes:
    """1 to 64 bits turned, anywhere or in the head only."""
    changed, reach = bytearray(data), len(data) if rng.random() < 0.5 else min(len(data), HEAD)
    for _ in range(2 ** rng.randrange(7)):
        changed[rng.randrange(reach)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def overwrite(data: bytes, rng: random.Random) -> bytes:
    """A stretch of zeros (a hole in a download) or of noise."""
    at, length = rng.randrange(len(data)), 2 ** rng.randrange(12)
    filling = bytes(length) if rng.random() < 0.5 else rng.randbytes(length)
    return (data[:at] + filling + data[at + length :])[: len(data)]


def number(data: bytes, rng: random.Random) -> bytes:
    """An extreme number of 1, 2, 4 or 8 bytes, of either byte order, where a length, size or count may be."""
    size, order = rng.choice((1, 2, 2, 4, 4, 4, 8)), rng.choice(("little", "big"))
    value = rng.choice(EXTREMES) if rng.random() < 0.7 else rng.getrandbits(8 * size)
    reach = len(data) if rng.random() < 0.3 else min(len(data), HEAD)
    at = rng.randrange(reach)
    return data[:at] + (value % 256**size).to_bytes(size, order) + data[at + size :]


def remove(data: bytes, rng: random.Random) -> bytes:
    """A piece gone from the middle."""
    at = rng.randrange(len(data))
    return data[:at] + data[at + 2 ** rng.randrange(12) :]


def repeat(data: bytes, rng: random.Random) -> bytes:
    """A piece of it over and over."""
    at, length = rng.randrange(len(data)), 2 ** rng.randrange(10)
    return data[:at] + data[at : at + length] * rng.choice((2, 3, 100, 1000)) + data[at + length :]


def insert(data: bytes, rng: random.Random) -> bytes:
    """Foreign bytes in between."""
    at = rng.randrange(len(data))
    return data[:at] + rng.randbytes(2 ** rng.randrange(10)) + data[at:]


def append(data: bytes, rng: random.Random) -> bytes:
    """Something after the end."""
    return data + (rng.randbytes(2 ** rng.randrange(12)) if rng.random() < 0.5 else data)


WAYS: Sequence[Callable[[bytes, random.Random], bytes]] = (
    truncate, flip, overwrite, number, number, remove, repeat, insert, append
)  # fmt: skip


def splice(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """The head of one file and the tail of another."""
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def damage(data: bytes, rng: random.Random, others: Sequence[bytes] = ()) -> bytes:
    """`data` damaged in one to three ways, perhaps spliced with one of the `others`."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if not data:
            break
        spliced = others and rng.random() < 0.1
        data = splice(data, rng.choice(others), rng) if spliced else rng.choice(WAYS)(data, rng)
    return data
