"""What runs in a process that decodes images for another (`batch/decoders.py`). It imports no torch."""

import json
import os
import queue
import struct
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

_LENGTHS = struct.Struct("<QQ")  # of a message, and of the bytes behind it


@dataclass(frozen=True)
class Answer:
    """What became of a file; its pixels in RGB follow."""

    size: Sequence[int] = (0, 0)  # width and height of what follows
    full: Sequence[int] = (0, 0)
    notes: Sequence[str] = ()
    error: Sequence[str] | None = None
    foreseen: bool = True  # whether the error is one of the input
    too_large: bool = False  # to be decoded beside others


def write_message(file: IO[bytes], message: Any, data: bytes = b"") -> None:
    """Send a message that JSON can hold, and bytes behind it. Raises OSError where nobody reads it."""
    head = json.dumps(message).encode("ascii")
    file.write(_LENGTHS.pack(len(head), len(data)) + head)
    file.write(data)
    file.flush()


def read_message(file: IO[bytes]) -> tuple[Any, bytes]:
    """The next message, and the bytes behind it. Raises EOFError where there are no more."""
    head, data = _LENGTHS.unpack(_read(file, _LENGTHS.size))
    return json.loads(_read(file, head)), _read(file, data)


def _read(file: IO[bytes], count: int) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise EOFError
    return data


def main(processes: int) -> None:
    """Answer requests until there are no more, as one of so many processes: together they decode what one may."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    from mmcli.media.image import share_memory

    share_memory(processes)
    asked: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def listen() -> None:
        with suppress(EOFError, OSError):
            while True:
                asked.put(read_message(requests)[0])
        os._exit(0)  # who asked is gone: what is being decoded is for nobody

    threading.Thread(target=listen, daemon=True).start()
    with suppress(BrokenPipeError):
        write_message(answers, "ready")
        while True:
            answer, pixels = _answer(**asked.get())
            write_message(answers, asdict(answer), pixels)


def _answer(path: str, name: str, relative: str, side: int, square: Sequence[int] | None) -> tuple[Answer, bytes]:
    from PIL import Image

    from mmcli.errors import InputError
    from mmcli.media.image import TooLarge, load_image
    from mmcli.media.sources import Source

    try:
        loaded = load_image(Source(name, Path(path), None, PurePosixPath(relative)), side=side)
        image = loaded.image
        if square is not None:
            image = image.resize((square[0], square[0]), Image.Resampling(square[1]))
        return Answer(image.size, (loaded.width, loaded.height), loaded.notes), image.tobytes()
    except TooLarge:
        return Answer(too_large=True), b""
    except InputError as error:
        return Answer(error=(error.what, error.do)), b""
    except Exception as error:
        return Answer(error=(type(error).__name__, str(error)), foreseen=False), b""
