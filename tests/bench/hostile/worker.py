"""A process that makes and exercises hostile inputs, one at a time, and measures itself meanwhile."""

import contextlib
import importlib
import random
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

ADDRESS_SPACE = 12 << 30  # bytes that a worker may map: torch and its threads map some 5 GB without using them


@dataclass(frozen=True)
class Result:
    """What came of input `index`: its verdict, the sentence or traceback, wall seconds, greatest resident bytes."""

    index: int
    verdict: str  # a word of `exercise`, "refused", or for faults "traceback", "crashed", "hung"
    words: str
    seconds: float
    peak: int

    @property
    def broke(self) -> bool:
        """Whether mmcli neither answered nor refused."""
        return self.verdict in ("traceback", "crashed", "hung")


def work(kind: str, seed: int, pipe: Connection) -> None:
    """Answer each index that comes with a Result, until None comes."""
    from mmcli.errors import MmcliError

    _bound()
    module = importlib.import_module(f"bench.hostile.{kind}")
    warnings.filterwarnings("error", module=r"mmcli(\.|$)")  # users would see them
    getattr(module, "prepare", lambda: None)()
    pipe.send("ready")
    while (index := pipe.recv()) is not None:
        folder = Path(tempfile.mkdtemp(prefix=f"hostile-{kind}-"))
        try:
            made = module.make(random.Random(f"{kind} {seed} {index}"), folder)
            _forget_peak()
            started = time.perf_counter()
            try:
                verdict, words = module.exercise(made), ""
            except MmcliError as error:
                verdict, words = "refused", str(error)
            except BaseException:  # a fault: reported with its traceback, the worker goes on
                verdict, words = "traceback", traceback.format_exc()
            pipe.send(Result(index, verdict, words, time.perf_counter() - started, peak()))
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def peak() -> int:
    """The greatest resident size of this process in bytes, since `_forget_peak` where the system can do that."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _forget_peak() -> None:
    with contextlib.suppress(OSError):  # not Linux, or not allowed: figures are then those of the worker's whole life
        Path("/proc/self/clear_refs").write_text("5")


def _bound() -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    except (ImportError, ValueError, OSError):
        pass
