"""What can go wrong, in the words a user sees, and the exit code that goes with it."""

import errno
import re
from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of every command; documented in `mmcli --help`."""

    OK = 0
    SOME_FAILED = 1
    USAGE = 2
    MODEL = 3
    MACHINE = 4  # or a fault of our own
    INTERRUPTED = 130


class MmcliError(Exception):
    """One sentence that says what happened and, where there is something to do, one that says what.

    Both are plain text without markup and without a closing full stop; `str()` joins them.
    """

    exit_code = ExitCode.SOME_FAILED

    def __init__(self, what: str, do: str = ""):
        super().__init__(what, do)
        self.what = what
        self.do = do

    def __str__(self) -> str:
        return ". ".join(part.rstrip(".") for part in (self.what, self.do) if part) + "."


class InputError(MmcliError):
    """One input cannot be read or used; the others go on."""


class UsageError(MmcliError):
    """The command line asks for something that does not fit together."""

    exit_code = ExitCode.USAGE


class ModelError(MmcliError):
    """A model cannot be found, downloaded, read or run."""

    exit_code = ExitCode.MODEL


class MachineError(MmcliError):
    """The machine cannot do what it takes, or we made a mistake."""

    exit_code = ExitCode.MACHINE


class WriteError(MachineError):
    """The machine does not let a file be written, and likely no other: a full disk, a folder that is read-only."""


class MemoryShortage(ModelError):
    """The machine has not as much memory as it takes."""

    exit_code = ExitCode.MACHINE


_SHORTAGE = re.compile(  # what PyTorch, its allocators, the dynamic linker, the C++ library and Python say
    r"not enough memory|out of memory|can(?:no|')t allocate memory|failed to map segment|cannot apply additional memory"
    r"|bad_alloc|can't start new thread|unable to allocate|unable to mmap|error return without exception set",
    re.IGNORECASE,
)


def ran_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, says that there was no memory (or no thread) to be had."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
            return True
        if isinstance(error, (RuntimeError, ImportError, OSError, SystemError)) and _SHORTAGE.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False
