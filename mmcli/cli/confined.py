"""Under a limit of address space (`ulimit -v`), where libraries crash instead of saying that it is full."""

import atexit
import os
import signal
import sys

_CRASHES = ("SIGSEGV", "SIGABRT", "SIGBUS")
_LINKER_GAVE_UP = 127  # an exit code of the dynamic linker, which has no memory for a library, and none of ours


def run_apart() -> None:
    """Go on in a child process if the address space is limited; this one waits and reports how it ended.

    Without memory PyTorch's libraries break off in the middle of being loaded, beyond what Python can catch; OpenBLAS
    then ends the process with the exit code 1, which is one of ours too.
    """
    if not _is_limited():
        return
    ends, says_so = os.pipe()
    child = os.fork()
    if child == 0:
        atexit.register(os.write, says_so, b".")  # an end that Python knows of
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the child too
    for name in ("SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), lambda number, _: os.kill(child, number))
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    os.set_blocking(ends, False)  # a process that outlives the child may have the other end
    os.close(says_so)
    crashed = code < 0 and signal.Signals(-code).name in _CRASHES
    if crashed or code == _LINKER_GAVE_UP or (code == 1 and not _written(ends)):
        from mmcli.errors import ExitCode

        print("mmcli: There is not enough memory. Raise ulimit -v.", file=sys.stderr, flush=True)
        code = ExitCode.MACHINE
    os._exit(code if code >= 0 else 128 - code)


def _written(pipe: int) -> bool:
    try:
        return bool(os.read(pipe, 1))
    except BlockingIOError:
        return False


def _is_limited() -> bool:
    try:
        import resource
    except ImportError:  # Windows
        return False
    return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY
