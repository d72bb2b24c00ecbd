"""What can go wrong, in the words a user sees, and the exit code that goes with it."""

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
