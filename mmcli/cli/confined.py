"""Under a limit of address space (`ulimit -v`), where libraries crash instead of saying that it is full."""

import os
import signal
import sys

_CRASHES = ("SIGSEGV", "SIGABRT", "SIGBUS")
_LINKER_GAVE_UP = 127  # an exit code of the dynamic linker, which has no memory for a library, and none of ours


def run_apart() -> None:
    """Go on in a child process if the address space is limited; this one waits and reports how it ended.

    Without memory PyTorch's libraries break off in the middle of being loaded, beyond what Python can catch.
    """
    if not _is_limited():
        return
    child = os.fork()
    if child == 0:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the child too
    for name in ("SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), lambda number, _: os.kill(child, number))
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code == _LINKER_GAVE_UP or (code < 0 and signal.Signals(-code).name in _CRASHES):
        from mmcli.errors import ExitCode

        print("mmcli: There is not enough memory. Raise ulimit -v.", file=sys.stderr, flush=True)
        code = ExitCode.MACHINE
    os._exit(code if code >= 0 else 128 - code)


def _is_limited() -> bool:
    try:
        import resource
    except ImportError:  # Windows
        return False
    return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY
