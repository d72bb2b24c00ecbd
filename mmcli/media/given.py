"""Inputs that a program hands over, as sources: paths and addresses, and what lies in its memory.

What lies in memory becomes the bytes of a file, so that it is decoded by the same code as every input.
"""

import io
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, Any, TypeAlias, TypeGuard

from mmcli.errors import InputError, UsageError
from mmcli.media.identity import identity_of_bytes
from mmcli.media.sources import Source, expand

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL import Image

Array: TypeAlias = "np.ndarray | torch.Tensor"
Waveform: TypeAlias = "tuple[Array, float]"  # samples and their rate in Hz
Given: TypeAlias = "str | os.PathLike[str] | bytes | IO[bytes] | Image.Image | Array | Waveform | Source"

WAV_BYTES = (1 << 32) - 64  # that the header of a WAV file can tell of
_FLOAT = 3  # the format of its samples


def is_one(given: "Given | Iterable[Given]") -> "TypeGuard[Given]":
    """Whether it is a single input, and no list of them."""
    if isinstance(given, str | bytes | bytearray | memoryview | os.PathLike | Source) or _is_array(given):
        return True
    if isinstance(given, tuple):
        return len(given) == 2 and _is_array(given[0]) and not _is_array(given[1])
    return _is_image(given) or _is_file(given)


def one_source(given: "Given", extensions: frozenset[str]) -> Source:
    """The source of a single input. Raises UsageError for a folder or a pattern, which would be several."""
    if not isinstance(given, str | os.PathLike):
        return source_of(given)
    name = os.fspath(given)
    if os.path.isdir(name):
        raise UsageError(f"{name} is a folder, which holds several inputs", "Give it in a list: [folder]")
    [*found] = expand([name], extensions=extensions)
    if len(found) != 1:
        raise UsageError(f"{name} names several inputs", "Give it in a list: [pattern]")
    return found[0]


def sources(given: "Iterable[Given]", extensions: frozenset[str]) -> Iterator[Source]:
    """The sources of many inputs, one after another; names of folders and patterns become what they stand for.

    Raises UsageError: at once for what is no list of inputs, and when its turn comes for an entry that is no input.
    """
    if not isinstance(given, Iterable) or isinstance(given, Mapping):
        raise _no_input(given)
    return _each(given, extensions)


def _each(given: "Iterable[Given]", extensions: frozenset[str]) -> Iterator[Source]:
    for one in given:
        if isinstance(one, str | os.PathLike):
            yield from expand([one], extensions=extensions)
        else:
            yield source_of(one)


def source_of(given: "Given") -> Source:
    """The source of what lies in memory. Raises UsageError for what is no input."""
    if isinstance(given, Source):
        return given
    if isinstance(given, bytes | bytearray | memoryview):
        return _held("bytes", bytes(given))
    if _is_file(given):
        return _read(given)
    if isinstance(given, tuple) and len(given) == 2:
        return _held("audio", _wav(_numpy(given[0]), given[1]))
    if _is_image(given):
        return _held(os.fspath(getattr(given, "filename", "") or "image"), _png(given))
    if _is_array(given):
        from PIL import Image

        pixels = _numpy(given)
        try:
            if pixels.ndim not in (2, 3) or pixels.shape[2:] == (2,):  # which Pillow takes for grey and transparency
                raise ValueError("neither grey nor colours")
            return _held("image", _png(Image.fromarray(pixels)))
        except (TypeError, ValueError) as error:
            shape = " × ".join(map(str, pixels.shape))
            what = f"An array of {shape} numbers of the type {pixels.dtype} is no image"
            do = "Give uint8 [height, width, 3], or audio as (samples, rate)"
            raise UsageError(what, do) from error
    raise _no_input(given)


def _no_input(given: object) -> UsageError:
    do = "Give a path, an address, bytes, an open file, an image or an array"
    if isinstance(given, list | set | frozenset):
        do = "Give what is in it one by one"
    return UsageError(f"{type(given).__name__} is no input", do)


def _read(file: IO[bytes]) -> Source:
    """The rest of an open file, which is not closed. Raises UsageError for one that was opened as text."""
    if isinstance(file, io.TextIOBase):
        raise UsageError("The file was opened as text", 'Open it with "rb"')
    data = file.read()
    name = getattr(file, "name", "")  # a descriptor's number where it was opened by that
    return _held(name if isinstance(name, str) and name else "file", data)


def _held(name: str, data: bytes) -> Source:
    place = PurePosixPath(os.path.basename(name) or "input")
    return Source(name, None, None, place, stream=io.BytesIO(data), content=identity_of_bytes(data))


def _is_image(given: Any) -> "TypeGuard[Image.Image]":
    from PIL import Image

    return isinstance(given, Image.Image)


def _is_file(given: Any) -> "TypeGuard[IO[bytes]]":
    return callable(getattr(given, "read", None)) and not isinstance(given, os.PathLike)


def _is_array(given: Any) -> "TypeGuard[Array]":
    return hasattr(given, "__array__") and hasattr(given, "shape") and not _is_image(given)


def _numpy(array: "Array") -> "np.ndarray":
    import numpy as np

    if hasattr(array, "detach"):
        array = array.detach().cpu()
        array = (array.float() if str(array.dtype) == "torch.bfloat16" else array).numpy()  # numpy has no bfloat16
    return np.ascontiguousarray(array)


def _png(image: "Image.Image") -> bytes:
    """An image as a PNG file with its pixels and EXIF data, so its orientation too; uncompressed, which is fastest."""
    plain = image if image.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") else image.convert("RGB")
    buffer = io.BytesIO()
    plain.save(buffer, "PNG", compress_level=0, exif=image.getexif())
    return buffer.getvalue()


def _wav(samples: "np.ndarray", rate: float) -> bytes:
    """Samples as a WAV file of floats: whole numbers are shares of their type's largest, as in files.

    Raises UsageError for what is no audio.
    """
    import numpy as np

    unsigned = np.issubdtype(samples.dtype, np.unsignedinteger)  # with silence in the middle, or anywhere
    number = isinstance(rate, int | float | np.integer | np.floating)
    if unsigned or samples.ndim not in (1, 2) or not (number and 0 < rate <= 1_000_000 and rate == int(rate)):
        what = f"An array of {samples.ndim} dimensions of {samples.dtype} at {rate} samples a second is no audio"
        raise UsageError(what, "Give (samples, rate): floats or signed integers, [samples] or [samples, channels]")
    if samples.ndim == 2 and samples.shape[0] < samples.shape[1]:  # channels first, as tensors have them
        samples = samples.T
    if np.issubdtype(samples.dtype, np.integer):
        samples = samples.astype(np.float32) / np.float32(np.iinfo(samples.dtype).max)
    data = np.ascontiguousarray(samples, "<f4").tobytes()
    if len(data) > WAV_BYTES:
        raise InputError("The audio is longer than 4 GB of samples", "Give it in parts, or as a file")
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    form = struct.pack("<HHIIHH", _FLOAT, channels, int(rate), int(rate) * channels * 4, channels * 4, 32)
    return (
        b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVE"
        + b"fmt " + struct.pack("<I", len(form)) + form
        + b"data" + struct.pack("<I", len(data)) + data
    )  # fmt: skip
