"""Start-up without the garbage collector: imports make hundreds of thousands of objects, and no garbage."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_alone = False


def run_alone() -> None:
    """Say that this process runs a command and nothing else: what its start-up makes lives as long as it does."""
    global _alone
    _alone = True


@contextmanager
def starting_up() -> Iterator[None]:
    """A context for imports: while it lasts the collector rests (in `import torch` it takes a quarter of the time).

    In a process of a command's own it never looks at what is there by then, either.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if _alone:
            gc.freeze()
        if collects:
            gc.enable()
