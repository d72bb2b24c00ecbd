"""Start-up: imports without the garbage collector, since they make hundreds of thousands of objects and no garbage,
and without Ctrl-C in the middle of them."""

import gc
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 130  # `errors.ExitCode.INTERRUPTED`, without its import

_alone = False


def run_alone() -> None:
    """Declare that this process runs one command: objects made at its start-up then need no garbage collection."""
    global _alone
    _alone = True


@contextmanager
def starting_up() -> Iterator[None]:
    """A context for imports: while it lasts the collector rests (in `import torch` it takes a quarter of the time).

    In a process of a command's own it never looks at what is there by then, either, and Ctrl-C waits for the end.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        with _interrupts_wait():
            yield
    finally:
        if _alone:
            gc.freeze()
        if collects:
            gc.enable()


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Raise KeyboardInterrupt at the end of this instead of within; a second Ctrl-C ends the process at once.

    In the middle of an import it can be lost in the import system's own callbacks, end the process in C++, or, out of
    a class that a string was executed for, have Python end by the signal after all.
    """
    if not _alone or not _raises_here():
        yield
        return
    pressed = False

    def wait(*_: object) -> None:
        nonlocal pressed
        if pressed:
            os._exit(INTERRUPTED)
        pressed = True

    handler = signal.signal(signal.SIGINT, wait)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if pressed:
        signal.raise_signal(signal.SIGINT)


def _raises_here() -> bool:
    """Whether Ctrl-C would be raised in this thread."""
    import threading

    from mmcli.errors import interrupt

    handlers = (signal.default_int_handler, interrupt)
    return signal.getsignal(signal.SIGINT) in handlers and threading.current_thread() is threading.main_thread()
