"""How long a command takes from the shell's point of view, beside the least it could take: importing what it needs.

python tests/bench/startup.py --rounds 9          commands, and what `mmcli caption` imports, in order, with times
"""

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[2]
PHOTO = ROOT / "examples" / "cat.jpg"
_LINE = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)")  # microseconds of the module alone, its name


def environment(threads: int | None = None) -> dict[str, str]:
    """This process's environment, in which mmcli and the tests' helpers are found, and the hub is not asked.

    Bytecode is kept, as it is where mmcli is installed.
    """
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    limit = {"OMP_NUM_THREADS": str(threads)} if threads else {}
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1"} | limit


@contextmanager
def named_or_made(name: str, size: str | None) -> Iterator[str]:
    """The model of that name, or a folder with a random checkpoint of that size, which is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="mmcli-bench-") as folder:
        if size:
            command = [sys.executable, str(Path(__file__).with_name("checkpoints.py")), folder, size]
            subprocess.run(command, check=True, env=environment())
        yield folder if size else name


def pairs(options: list[str]) -> list[tuple[str, list[str], str, list[str]]]:
    """(what, its command line, beside what, its command line); `options` choose the model of the last."""
    python = [sys.executable, "-c"]
    mmcli = [sys.executable, "-m", "mmcli"]
    return [
        ("mmcli --version", [*mmcli, "--version"], "import typer", [*python, "import typer"]),
        ("mmcli --help", [*mmcli, "--help"], "import typer", [*python, "import typer"]),
        ("mmcli caption PHOTO", [*mmcli, "caption", str(PHOTO), *options], "import torch", [*python, "import torch"]),
    ]


def seconds(command: list[str], threads: int | None) -> tuple[float, float]:
    """Wall and processor time of one run. Raises RuntimeError with the last line of its stderr where it fails."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, env=environment(threads), capture_output=True, text=True)
    taken, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    return taken, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def measure(options: list[str], rounds: int, threads: int | None) -> list[dict]:
    """Every pair in turn, A B A B …, after one run of each that fills the system's caches."""
    results = []
    for what, ours, other, theirs in pairs(options):
        result: dict[str, Any] = {"what": what, "beside": other}
        try:
            samples = [(seconds(ours, threads), seconds(theirs, threads)) for _ in range(rounds + 1)][1:]
            for side, own in zip(("ours", "theirs"), zip(*samples, strict=True), strict=True):
                result[side], result[f"{side}_processor"] = map(list, zip(*own, strict=True))
        except RuntimeError as error:
            result["failed"] = str(error)
        results.append(result)
    return results


def imports(command: list[str], threads: int | None) -> dict[str, float]:
    """Every module that a command imports, in the order in which each is done, with its own seconds."""
    timed = [sys.executable, "-X", "importtime", *command]
    done = subprocess.run(timed, env=environment(threads), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    return {name: int(own) / 1e6 for own, name in _LINE.findall(done.stderr)}


def import_rows(rounds: int, threads: int | None) -> list[tuple[str, int, float, int]]:
    """What `mmcli caption` imports: (package, modules, seconds, modules that `import torch` would not), in order.

    Packages stand where the first of their modules is done; the standard library is one of them.
    """
    command = ["-m", "mmcli", "caption", str(PHOTO)]
    runs = [imports(command, threads) for _ in range(rounds + 1)][1:]
    plain = imports(["-c", "import torch"], threads)
    packages: dict[str, list[str]] = {}
    for module in runs[0]:
        first = module.partition(".")[0]
        owner = "Python" if first in sys.stdlib_module_names else first
        packages.setdefault(owner, []).append(module)
    rows = []
    for name, own in packages.items():
        taken = sum(median(run.get(module, 0.0) for run in runs) for module in own)
        rows.append((name, len(own), taken, len(set(own) - set(plain))))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Start-up of commands, and what they import.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    import tables

    print(tables.startup(measure([], given.rounds, given.threads)))
    rows = import_rows(given.rounds, given.threads)
    print(tables.imported(rows))
    print("load average: " + " ".join(f"{value:.1f}" for value in os.getloadavg()))


if __name__ == "__main__":
    main()
