"""What stands in a JPEG beside its coefficients: its scans, and whether their data are all there (ITU-T T.81)."""

import re
from dataclasses import dataclass, field

from mmcli.media.limits import SCANS, SEGMENTS

_SOI, _EOI, _SOS, _DAC = 0xD8, 0xD9, 0xDA, 0xCC
_JUNK = 4096  # bytes of nonsense between segments that are passed over, in all
_NEXT_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # after entropy-coded data: no stuffed FF00, no restart
_KINDS = {3: "lossless", 5: "hierarchical", 6: "hierarchical", 7: "lossless", 11: "lossless", 15: "lossless"}
_FILL = bytes(range(1, 129)) * 4  # no FF in it: entropy-coded data as good as any


@dataclass
class Layout:
    """A JPEG's frame and scans. `end` is where the entropy-coded data of the last scan end."""

    bits: int = 0
    coding: int = -1  # the n of its SOFn
    pixels: int = 0
    components: int = 0
    sampling: list[tuple[int, int, int]] = field(default_factory=list)  # (identifier, horizontal, vertical)
    scans: int = 0
    end: int = 0
    ended: bool = False  # by an EOI marker
    refined: dict[int, list[int]] = field(default_factory=dict)  # component → for each coefficient bits left out

    @property
    def several_scans(self) -> bool:
        """Whether the decoder keeps all coefficients until it has them."""
        return self.coding in (2, 10) or self.scans > 1

    @property
    def coefficients(self) -> int:
        """How many it has, over all components with their subsampling."""
        largest = max((h * v for _, h, v in self.sampling), default=1) or 1
        return self.pixels * sum(h * v for _, h, v in self.sampling) // largest

    @property
    def complete(self) -> bool:
        """Whether the scans bring every coefficient of every component to its last bit."""
        return len(self.refined) == self.components and not any(any(bits) for bits in self.refined.values())

    @property
    def unreadable(self) -> str | None:
        """Why libjpeg cannot decode it, if that is so."""
        if self.coding in _KINDS:
            return f"a {_KINDS[self.coding]} JPEG"
        return f"a JPEG of {self.bits} bits a sample" if self.bits not in (0, 8) else None


def layout(data) -> Layout | None:
    """The layout of the JPEG that the buffer `data` begins with, up to its end or SCANS + 1 scans; None: broken."""
    found, at, junk = Layout(), 2, 0
    for _ in range(SEGMENTS + 2 * SCANS):
        while at < len(data) and data[at] != 0xFF:
            at, junk = at + 1, junk + 1
            if junk > _JUNK:
                return None
        while at < len(data) and data[at] == 0xFF:
            at += 1
        if at >= len(data):
            break
        marker, at = data[at], at + 1
        if marker == _EOI:
            found.ended = True
            break
        if marker in (0x00, 0x01, _SOI) or 0xD0 <= marker <= 0xD7:
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        segment = bytes(data[at + 2 : at + length])
        at += max(length, 2)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, _DAC) and len(segment) >= 6:
            _frame(found, marker, segment)
        elif marker == _SOS:
            _scan(found, segment)
            after = _NEXT_MARKER.search(data, at)
            at = found.end = after.start() if after else len(data)
            if found.scans > SCANS:
                break
    else:
        return None
    return found if found.scans else None


def _frame(found: Layout, marker: int, segment: bytes) -> None:
    found.coding, found.bits, found.components = marker - 0xC0, segment[0], segment[5]
    found.pixels = int.from_bytes(segment[1:3], "big") * int.from_bytes(segment[3:5], "big")
    parts = [segment[at : at + 3] for at in range(6, len(segment) - 2, 3)]
    found.sampling = [(part[0], part[1] >> 4, part[1] & 15) for part in parts]


def _scan(found: Layout, segment: bytes) -> None:
    found.scans += 1
    if not segment or len(segment) < 4 + 2 * segment[0]:
        return
    first, last, low = segment[-3], min(segment[-2], 63), segment[-1] & 15
    if found.coding not in (2, 10):  # not progressive: all of each component at once
        first, last, low = 0, 63, 0
    for identifier in segment[1 : 1 + 2 * segment[0] : 2]:
        bits = found.refined.setdefault(identifier, [14] * 64)
        bits[first : last + 1] = [low] * (last + 1 - first)


def with_end(data: bytes, found: Layout, filled: bool = False) -> bytes:
    """`data` up to the end of its last scan, with an end marker; `filled`: with more coded data before it.

    A decoder that has all it needs does not look at what is `filled` in; one that lacks data takes it for them.
    """
    more = b"".join(_FILL + bytes((0xFF, 0xD0 + n % 8)) for n in range(64)) if filled else b""
    return data[: found.end] + more + bytes((0xFF, _EOI))
