"""What can be read only once, or has no end: pipes, FIFOs and devices."""

import os
import stat
import time
from pathlib import Path
from typing import BinaryIO

from mmcli.media.limits import FIFO_WAIT

_NONBLOCK = getattr(os, "O_NONBLOCK", 0)  # not on Windows
_FIRST = 4096


class NoWriter(OSError):
    """Nobody has the FIFO open for writing."""


def is_pipe(path: Path) -> bool:
    """Whether a path leads to something else than a file on the disk or a folder."""
    try:
        mode = os.stat(path).st_mode
    except OSError:  # opening it says what is wrong
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def open_pipe(path: Path) -> tuple[BinaryIO, bytes]:
    """A FIFO or device and the first it gives, if it gave any yet. Raises OSError.

    Opened in the plain way, a FIFO that nobody writes to would keep its reader waiting forever: after FIFO_WAIT
    seconds that is NoWriter. For one that is open for writing it is waited as long as it takes.
    """
    file = open(path, "rb", buffering=0, opener=lambda name, flags: os.open(name, flags | _NONBLOCK))  # noqa: SIM115
    try:
        fifo = stat.S_ISFIFO(os.fstat(file.fileno()).st_mode)
        until = time.monotonic() + FIFO_WAIT
        while (first := file.read(_FIRST)) == b"" and fifo:  # no writer; None: one that has written nothing yet
            if time.monotonic() >= until:
                raise NoWriter
            time.sleep(0.05)
        if _NONBLOCK:
            os.set_blocking(file.fileno(), True)
        return file, first or b""
    except BaseException:
        file.close()
        raise


def up_to(stream: BinaryIO, size: int, data: bytes = b"") -> bytes:
    """`data` and what is left of `stream` up to `size` bytes, fewer only at its end."""
    while len(data) < size and (chunk := stream.read(size - len(data))):
        data += chunk
    return data
