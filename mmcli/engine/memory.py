"""How much memory this process may have, and how it gives some back. Imports no torch."""

import contextlib
import ctypes
import os
import sys
from pathlib import Path

from mmcli.engine.cpu import CONTROL_GROUP

OWN_GROUP = Path("/proc/self/cgroup")

HUGE_PAGE = 2 << 20
MADV_HUGEPAGE = 14  # Linux's number (madvise(2))

# glibc's numbers of some settings (mallopt(3)), the variables with which a user sets them, and what we set.
KEPT = (
    (-3, "MALLOC_MMAP_THRESHOLD_", 32 << 20),
    (-1, "MALLOC_TRIM_THRESHOLD_", 256 << 20),
    (-8, "MALLOC_ARENA_MAX", 1),
)


def memory_limit() -> int | None:
    """Bytes of the machine's memory, or fewer where a control group or `ulimit -v` allows no more; None: unknown."""
    known = [limit for limit in (_installed(), _of_control_group(), _of_address_space()) if limit]
    return min(known) if known else None


def _installed() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on Windows
        return None


def _of_control_group() -> int | None:
    """The smallest limit of the process's own group and of those around it (cgroup v2, v1)."""
    places = [CONTROL_GROUP / "memory.max", CONTROL_GROUP / "memory" / "memory.limit_in_bytes"]
    with contextlib.suppress(OSError, ValueError):
        for line in OWN_GROUP.read_text().splitlines():
            _, kinds, own = line.split(":", 2)
            inner = Path(own.lstrip("/"))
            if kinds in ("", "memory"):
                root, name = (
                    (CONTROL_GROUP / kinds, "memory.limit_in_bytes") if kinds else (CONTROL_GROUP, "memory.max")
                )
                places += [root / folder / name for folder in (inner, *inner.parents)]
    limits = []
    for place in places:
        with contextlib.suppress(OSError, ValueError):
            limits.append(int(place.read_text()))  # "max" is no number
    return min(limits, default=None)


def _of_address_space() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def keep_freed() -> None:
    """Have the memory of a tensor that is gone ready for the next one, in this process as long as it lives.

    glibc would give pieces of more than 128 kB back to the system, which fills each with zeros, page by page, when it
    is asked for again: a tenth of the time of a small model on a CPU. And every thread would have an arena of its own,
    whose free memory no other thread gets: threads that begin after this share one. What a user has set stays; other C
    libraries have no such call, and it does nothing there.
    """
    if "GLIBC_TUNABLES" in os.environ or any(name in os.environ for _, name, _ in KEPT):
        return
    with contextlib.suppress(OSError, AttributeError, TypeError):
        library = ctypes.CDLL(None)
        for number, _, size in KEPT:
            library.mallopt(number, size)


def use_huge_pages(address: int, size: int) -> None:
    """Have the system put memory that was not written yet into pages of 2 MB, where it can.

    Weights that every step reads are found faster then: up to a tenth of the time. Linux alone asks to be asked.
    """
    first, last = -(-address // HUGE_PAGE) * HUGE_PAGE, (address + size) // HUGE_PAGE * HUGE_PAGE
    if sys.platform == "linux" and last > first:
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), MADV_HUGEPAGE)


def give_back_freed() -> None:
    """Let the system have what was freed: glibc keeps it, each thread's apart, where other threads cannot use it.

    Other C libraries have no such call, and it does nothing there.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
