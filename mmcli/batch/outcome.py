"""What became of one input of many, and of a process that worked on it."""

import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmcli.errors import InputError
from mmcli.output.schema import Record

if TYPE_CHECKING:
    from mmcli.media.image import LoadedImage
    from mmcli.media.sources import Source


@dataclass(frozen=True)
class Outcome:
    """A record, and where the input failed the error that the record describes."""

    source: "Source"
    record: Record
    error: InputError | None = None
    full: "Callable[[], LoadedImage] | None" = None  # in full size, if asked for; raises InputError
    remarks: tuple[str, ...] = ()  # those of the record's notes that are about the request, not about this input


def ending(code: int) -> str:
    """How a process ended, by the code that `subprocess` gives: "by SIGKILL", or "with exit code 1"."""
    if code >= 0:
        return f"with exit code {code}"
    names = {one.value: one.name for one in signal.Signals}
    return f"by {names.get(-code, f'signal {-code}')}"


def unforeseen(source: "Source", error: Exception) -> InputError:
    """An unforeseen error, as the failure of the one input that it came from."""
    trouble = InputError(f"{source.name} cannot be read ({type(error).__name__}: {error})", "Try --debug")
    trouble.__cause__ = error
    return trouble
