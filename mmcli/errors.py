"""What can go wrong, in the words a user sees, and the exit code that goes with it."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import NoReturn


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
    return any(_is_shortage(one) for one in _chain(error))


def _is_shortage(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return isinstance(error, (RuntimeError, ImportError, OSError, SystemError)) and bool(_SHORTAGE.search(str(error)))


_ctrl_c = False  # it was pressed, and nothing has said yet that it took the KeyboardInterrupt


def interrupt(*_: object) -> NoReturn:
    """The handler of Ctrl-C in a command's own process: raise KeyboardInterrupt, and remember that it was raised.

    C++ that calls Python may drop it and raise an error of its own, as PyTorch does where it asks an object for its
    first item: "could not determine the shape".
    """
    global _ctrl_c
    _ctrl_c = True
    raise KeyboardInterrupt


def interrupt_taken() -> None:
    """To be called by what goes on after Ctrl-C: an error from here on has nothing to do with it."""
    global _ctrl_c
    _ctrl_c = False


def was_interrupted(error: BaseException | None) -> bool:
    """Whether an error is Ctrl-C or a signal to end, or what a library made of it.

    KeyboardInterrupt and SystemExit may come at any moment: within an import that is written in C, where they end as a
    SystemError, or while `threading.Condition` waits, whose tidying up then fails with a RuntimeError.
    """
    found = any(isinstance(one, (KeyboardInterrupt, SystemExit)) for one in _chain(error))
    return found or (_ctrl_c and error is not None)


def raise_if_interrupted(error: BaseException) -> None:
    """Raise KeyboardInterrupt or SystemExit where an error is what a library made of it.

    To be called first wherever any error at all is taken for a fault of an input, a file or the network.
    """
    for one in _chain(error):
        if isinstance(one, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        if isinstance(one, SystemExit):
            raise SystemExit(one.code) from error
    if _ctrl_c:
        raise KeyboardInterrupt from error


@contextmanager
def keeping_interrupts() -> Iterator[None]:
    """A context out of which Ctrl-C and signals to end come as themselves, whatever a library made of them."""
    try:
        yield
    except Exception as error:
        raise_if_interrupted(error)
        raise


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and all that it came from, by cause and by context, each once."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        error = waiting.pop()
        if error is not None and id(error) not in seen:
            seen.add(id(error))
            yield error
            waiting += [error.__context__, error.__cause__]


def first_line(error: BaseException) -> str:
    """The first line of an error's own text, or its type where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
