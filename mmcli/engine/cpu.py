"""How PyTorch's threads share a CPU with everybody else. Imports no torch: it must be settled before that is loaded."""

import math
import os
from collections.abc import MutableMapping
from pathlib import Path

# What a user may have set to settle it otherwise.
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
COUNTING = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")

LOAD = Path("/proc/loadavg")
CONTROL_GROUP = Path("/sys/fs/cgroup")

_lowered = False  # whether PyTorch's threads are fewer than the cores allowed because others were at work


def settle_threads(variables: MutableMapping[str, str]) -> None:
    """Set the variables that OpenMP reads when PyTorch is imported, but for those that are there already.

    Threads that wait for each other sleep instead of spinning: on a busy machine a spinning thread holds the core that
    the awaited one needs, and a prefill then takes ten times as long. And there are no more of them than cores are
    free: every parallel loop ends with its slowest thread.
    """
    global _lowered
    if not any(name in variables for name in WAITING):
        variables["OMP_WAIT_POLICY"] = "PASSIVE"
    free, cores = free_cores(), os.cpu_count() or 1
    if free < cores and not any(name in variables for name in COUNTING):
        variables["OMP_NUM_THREADS"] = str(free)
        _lowered = free < allowed_cores()


def cores_for_batches(threads: int) -> int:
    """Cores that batches side by side may keep busy where PyTorch has `threads`: each waits for none of the others, so
    those on which somebody else happened to be at work when the process began are among them."""
    return max(threads, allowed_cores()) if _lowered else threads


def allowed_cores() -> int:
    """Cores that this process may run on: those of its affinity mask, and no more than its control group's quota."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        cores = os.cpu_count() or 1
    quota = _quota()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def free_cores() -> int:
    """Cores of `allowed_cores` that nobody else is using, at least one."""
    return max(1, min(allowed_cores(), (os.cpu_count() or 1) - _others()))


def _others() -> int:
    """Threads of other processes that keep a core busy, now and for a while: a passing one does not count.

    Linux tells how many run at this moment (this one among them) beside their mean over a minute; elsewhere 0.
    """
    try:
        fields = LOAD.read_text().split()
        return max(0, min(int(fields[3].partition("/")[0]) - 1, int(float(fields[0]))))
    except (OSError, ValueError, IndexError):
        return 0


def _quota() -> float | None:
    """Cores' worth of time that the control group may use (cgroup v2, v1), None without a limit."""
    try:
        if (CONTROL_GROUP / "cpu.max").exists():
            limit, period = (CONTROL_GROUP / "cpu.max").read_text().split()
        else:
            limit, period = ((CONTROL_GROUP / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return float(limit) / float(period) if limit != "max" and float(limit) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
