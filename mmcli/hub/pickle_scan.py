"""What a file that torch.save wrote would do when it is opened, found out without opening it.

Two forms: since PyTorch 1.6 a zip archive that stores a pickle (`data.pkl`) and the numbers of each tensor, before that
several pickles one behind the other with the numbers behind them. A pickle is a program: what it names it can call. So
its instructions are listed here, and none is followed.
"""

import os
import pickletools
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from mmcli.errors import ModelError
from mmcli.hub.other_formats import not_the_content

LARGEST_PICKLE = 16_000_000  # bytes; two hundred a tensor are usual
MOST_STEPS = 2_000_000  # of all pickles in a file
MOST_ENTRIES = 100_000  # of an archive
MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the old form; 1001 is the second
OLD_PICKLES = 5  # in front of the numbers

KINDS = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
ALLOWED = {
    "collections.OrderedDict", "torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter", *(f"torch.{kind}Storage" for kind in KINDS),
}  # fmt: skip
DATA = (  # names that begin so build data of some other kind, and are no code
    "torch._utils._rebuild_", "torch.storage.", "torch.serialization.", "numpy.core.multiarray.",
    "numpy._core.multiarray.", "numpy.dtype", "numpy.ndarray", "collections.",
)  # fmt: skip

AGAIN = "Download the model again"
NEVER = "Do not use this file: whoever made it could run anything on this machine"


def scan(path: Path) -> list[int] | None:
    """How many bytes of numbers each record of a file has; None in the old form, where nothing tells that in advance.

    Raises ModelError for what is not plain tensors: code, anything else that PyTorch would build, damage, and what
    unfolds into more than it is.
    """
    try:
        with path.open("rb") as file:
            head = file.read(64)
            if instead := not_the_content(head):
                raise damaged(path, instead)
            if head[:4] == b"PK\x03\x04":
                return _check_archive(path, file)
            _check_old(path, file)
            return None
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror})", "Check its permissions") from error


def damaged(path: Path, what: object) -> ModelError:
    """The error of a file that cannot be read."""
    return ModelError(f"{path} is damaged: {what}", AGAIN)


def _check_archive(path: Path, file: BinaryIO) -> list[int]:
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            size = os.fstat(file.fileno()).st_size
            if len(entries) > MOST_ENTRIES or sum(entry.file_size for entry in entries) > size:
                raise damaged(path, "it unfolds into more than it is")
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise damaged(path, "it is a compressed archive, which torch.save does not write")
            if len({entry.filename for entry in entries}) < len(entries) or _overlap(entries):
                raise damaged(path, "its entries are twice there or overlap")
            if any("/code/" in f"/{entry.filename}" for entry in entries):
                raise ModelError(f"{path} holds a program (TorchScript) and no weights alone", NEVER)
            pickles = [entry for entry in entries if entry.filename.split("/")[-1] == "data.pkl"]
            if len(pickles) != 1 or pickles[0].filename.count("/") != 1:
                raise damaged(path, "it is an archive without data.pkl, as torch.save writes it")
            if pickles[0].file_size > LARGEST_PICKLE:
                raise damaged(path, f"its data.pkl is larger than {LARGEST_PICKLE / 1e6:.0f} MB")
            steps = list(_steps(path, BytesIO(archive.read(pickles[0])), MOST_STEPS))
    except zipfile.BadZipFile as error:
        raise damaged(path, f"it is cut off, or its archive is broken ({error})") from error
    except (NotImplementedError, RuntimeError, EOFError, ValueError) as error:  # encrypted, of another version, …
        raise damaged(path, error) from error
    _check_names(path, steps)
    _check_numbers(path, steps, size)
    return [entry.file_size for entry in entries if entry.filename.split("/")[1:2] == ["data"]]


def _overlap(entries: list[zipfile.ZipInfo]) -> bool:
    ordered = sorted(entries, key=lambda entry: entry.header_offset)
    ends = (entry.header_offset + entry.file_size for entry in ordered)
    return any(end > later.header_offset for end, later in zip(ends, ordered[1:], strict=False))


def _check_old(path: Path, file: BinaryIO) -> None:
    file.seek(0)
    size = os.fstat(file.fileno()).st_size
    begin = BytesIO(file.read(LARGEST_PICKLE))
    left = MOST_STEPS
    for number in range(OLD_PICKLES):
        steps = list(_steps(path, begin, left))
        left -= len(steps)
        _check_names(path, steps)
        if number == 0 and MAGIC not in [value for _, value in steps]:
            raise ModelError(f"{path} is a pickle, but not one of PyTorch's weights", AGAIN)
        if number > 2:  # those in front are two numbers, and facts about the machine
            _check_numbers(path, steps, size)


Step = tuple[str, object]  # an instruction's name, and what it is given


def _steps(path: Path, file: BytesIO, most: int) -> Iterator[Step]:
    """The instructions of one pickle up to its end. Raises ModelError for what is none, or is longer than `most`."""
    count = 0
    try:
        for step, value, _ in pickletools.genops(file):
            count += 1
            if count > most:
                raise damaged(path, f"its pickle has more than {MOST_STEPS} steps")
            yield step.name, value
    except (ValueError, EOFError, IndexError, OverflowError) as error:
        first = (str(error).splitlines() or [""])[0][:100]
        what = "it is cut off, or no file of PyTorch's weights"
        raise damaged(path, f"{what} ({first})") from error


def _check_names(path: Path, steps: list[Step]) -> None:
    """Raise ModelError unless all that a pickle names is what tensors are built of."""
    words: list[str] = []
    for name, value in steps:
        if "UNICODE" in name or "STRING" in name:
            words = [*words[-1:], str(value)]
        named = None
        if name in ("GLOBAL", "INST"):
            named = ".".join(str(value).split(" ", 1))
        elif name == "STACK_GLOBAL":
            named = ".".join(words) or "something"
        elif name.startswith("EXT"):
            named = f"the extension {value}"
        if named is None or named in ALLOWED:
            continue
        named = named if len(named) <= 80 else f"{named[:80]}…"
        if named.startswith(DATA) and name != "INST":
            raise ModelError(f"{path} holds more than plain tensors: it names {named!r}", "Use a file of weights alone")
        raise ModelError(f"{path} holds code: it names {named!r}, which would be run when it is opened", NEVER)


def _check_numbers(path: Path, steps: list[Step], size: int) -> None:
    """Raise ModelError for sizes and places that no tensor in a file of `size` bytes has."""
    largest = max((value for _, value in steps if isinstance(value, int)), default=0)
    if largest > size:
        raise damaged(path, f"it speaks of {largest} numbers, but is {size} bytes long")
