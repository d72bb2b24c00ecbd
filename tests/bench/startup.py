"""How long a command takes from the shell's point of view, beside the least it could take: importing what it needs."""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
PHOTO = ROOT / "examples" / "cat.jpg"


def environment(threads: int | None = None) -> dict[str, str]:
    """This process's environment, in which mmcli and the tests' helpers are found, and the hub is not asked."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    limit = {"OMP_NUM_THREADS": str(threads)} if threads else {}
    return os.environ | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1"} | limit


def pairs(options: list[str]) -> list[tuple[str, list[str], str, list[str]]]:
    """(what, its command line, beside what, its command line); `options` choose the model of the last."""
    python = [sys.executable, "-c"]
    mmcli = [sys.executable, "-m", "mmcli"]
    return [
        ("mmcli --help", [*mmcli, "--help"], "import typer", [*python, "import typer"]),
        ("mmcli caption PHOTO", [*mmcli, "caption", str(PHOTO), *options], "import torch", [*python, "import torch"]),
    ]


def seconds(command: list[str], threads: int | None) -> float:
    """Wall time of one run. Raises RuntimeError with the last line of its stderr where it fails."""
    start = time.perf_counter()
    done = subprocess.run(command, env=environment(threads), capture_output=True, text=True)
    taken = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    return taken


def measure(options: list[str], rounds: int, threads: int | None) -> list[dict]:
    """Every pair in turn, A B A B …, after one run of each that fills the system's caches."""
    results = []
    for what, ours, other, theirs in pairs(options):
        result = {"what": what, "beside": other}
        try:
            samples = [(seconds(ours, threads), seconds(theirs, threads)) for _ in range(rounds + 1)][1:]
            result |= {"ours": [a for a, _ in samples], "theirs": [b for _, b in samples]}
        except RuntimeError as error:
            result["failed"] = str(error)
        results.append(result)
    return results
