"""Measure mmcli, side by side with transformers where that can run the same checkpoint. Nothing is asserted.

    python tests/bench/run.py                                       start-up, and the bundled nano
    python tests/bench/run.py --make 3b --device cuda --batch 4     a random PaliGemma of that size
    python tests/bench/run.py --model google/paligemma2-3b-mix-448  a checkpoint that is here already

README.md beside this file says how to read the figures.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent.parent))

import checkpoints  # noqa: E402
import startup  # noqa: E402
import tables  # noqa: E402

SIZES = [size for family in (checkpoints, *checkpoints.OTHERS) for size in family.SIZES]
# Model types that transformers runs too.
IN_BOTH = ("florence2", "paligemma", "gemma3n", "fuyu", "idefics3", "smolvlm", "mllama")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Measure mmcli, side by side with transformers where that can run the same checkpoint."
    )
    parser.add_argument("--model", default="nano", help="nano, a checkpoint's folder, or a hub model in the cache")
    parser.add_argument("--make", choices=SIZES, help="a random checkpoint of this size instead")
    parser.add_argument("--side", type=int, help="side of its pictures in pixels, for --make")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--table", default="auto", help="where Gemma 3n's per-layer table is: cpu or device")
    parser.add_argument("--threads", type=int, help="threads on the CPU (default: PyTorch's choice)")
    parser.add_argument("--rounds", type=int, default=5, help="processes a side, in turn")
    parser.add_argument("--repeats", type=int, default=3, help="timed answers in each process")
    parser.add_argument("--batch", type=int, nargs="+", default=[1], help="pictures at once, several after another")
    parser.add_argument("--tokens", type=int, default=64, help="tokens to write")
    parser.add_argument("--skip-startup", action="store_true")
    parser.add_argument("--json", action="store_true", help="print every sample as one JSON object")
    given = parser.parse_args()
    if given.tokens < 2 or min(given.rounds, given.repeats, *given.batch) < 1:
        parser.error("there must be at least 2 tokens, and 1 of everything else")
    return given


def script(name: str, *arguments: str, threads: int | None = None, seconds: float | None = None) -> str:
    """Run a script of this folder in a process of its own → its stdout. RuntimeError with its last words.

    After `seconds` it is ended, with all that it has started. How long it took is said on stderr, for those who wait.
    """
    command, start = [sys.executable, str(HERE / name), *arguments], time.perf_counter()
    process = subprocess.Popen(
        command, env=startup.environment(threads), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        out, err = process.communicate(timeout=seconds)
    except BaseException as error:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise RuntimeError(f"not done within {seconds:.0f} s") from None
        raise
    print(f"{name} took {time.perf_counter() - start:.0f} s", file=sys.stderr)
    if process.returncode:
        raise RuntimeError(reason(err) or f"exit code {process.returncode}")
    return out


def reason(stderr: str) -> str:
    """The line of a process's last words that names an error: others may stand behind it."""
    lines = stderr.strip().splitlines()
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return (named or lines or [""])[-1]


def compare(
    model: str,
    given: argparse.Namespace,
    chosen: list[str] | None = None,
    left: Callable[[], float | None] = lambda: None,
) -> dict[str, Any]:
    """All samples of all sides, a round's by their batches, A B A B …; a side that fails is left out and says why.

    The sides are those that can run it, where none are `chosen`. `left` says how many seconds there are.
    """
    spec = {"model": model} | {key: getattr(given, key) for key in ("device", "dtype", "table", "threads", "batch")}
    spec |= {"tokens": given.tokens, "repeats": given.repeats}
    samples: dict[str, list[list[dict]]] = {side: [] for side in chosen or sides(model)}
    failed: dict[str, str] = {}
    for _ in range(given.rounds):
        for side in [side for side in samples if side not in failed]:
            try:
                command = json.dumps(spec | {"side": side})
                out = script("worker.py", command, threads=given.threads, seconds=left())
                samples[side].append(json.loads(out.splitlines()[-1]))
            except RuntimeError as error:
                failed[side] = str(error)
    return {"samples": {side: got for side, got in samples.items() if got}, "failed": failed}


def sides(model: str) -> list[str]:
    """Who can run this checkpoint. Raises ModelError where it is not here."""
    from mmcli.hub.resolve import resolve

    in_both = resolve(model, download=False).config.get("model_type") in IN_BOTH
    return ["mmcli", "transformers"] if in_both and find_spec("transformers") else ["mmcli"]


def main() -> int:
    given = options()
    with tempfile.TemporaryDirectory(prefix="mmcli-bench-") as folder:
        model = given.model
        if given.make:
            script("checkpoints.py", folder, given.make, str(given.side or 0))
            model = folder
        results: dict[str, Any] = {"model": given.make or given.model, "settings": vars(given)}
        chosen = ["--model", model, "--device", given.device, "--dtype", given.dtype]
        if not given.skip_startup:
            results["startup"] = startup.measure(chosen, given.rounds, given.threads)
        results |= compare(model, given)
    print(json.dumps(results) if given.json else tables.report(results), end="\n" if given.json else "")
    return 1 if results["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
