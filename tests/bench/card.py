"""The whole table of a GPU by one command, as it goes into RESULTS.md: mmcli beside transformers, both in this run.

    python tests/bench/card.py                         all models; about five minutes on an H100
    python tests/bench/card.py --only 3b mllama-11b    some of them

Random weights of the published sizes, bfloat16, 64 tokens written, one round each. The share is of the rate of a copy
within the memory, for the bytes of weights that a step must read.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent)]

from run import compare, script  # noqa: E402
from tables import seconds_text  # noqa: E402

# Rows of a batch of each; small ones first, that something is printed soon.
MODELS = {"3b": (1, 32), "3b-2": (1, 32), "e4b": (1, 16), "mllama-11b": (1, 8)}
IN_INTEGERS = ("3b", (1, 16))  # which one is measured in integers, too, …
IN_A_FOLDER = ("3b", (16, 32))  # … and answering a folder whose answers have unlike lengths


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--skip-folder", action="store_true")
    return parser.parse_args()


def lines_of(name: str, results: dict[str, Any], batches: tuple[int, ...]) -> Iterator[str]:
    """A line of the table for each batch."""
    for place, batch in enumerate(batches):
        ours, theirs = (results["samples"].get(side, [[]])[0][place : place + 1] for side in ("mmcli", "transformers"))
        cells = [name, str(batch)]
        for key, form in (("prefill", seconds_text), ("rate", "{:,.0f}".format)):
            cells += [form(side[0][key]) if side else "–" for side in (ours, theirs)]
        share = ours[0]["rate"] / batch * ours[0]["read"] / ours[0]["copy"] if ours else None
        cells.append("–" if share is None else f"{share:.0%}")
        loads = [side[0].get("load") if side else None for side in (ours, theirs)]
        cells.append(" / ".join("–" if load is None else f"{load:.1f} s" for load in loads) if place == 0 else "")
        yield f"| {' | '.join(cells)} |"


def main() -> None:
    import torch

    given = options()
    settings = {"device": "cuda", "dtype": "bfloat16", "table": "auto", "threads": None, "rounds": 1, "repeats": 2}
    print(f"## {time.strftime('%Y-%m-%d')}, one {torch.cuda.get_device_name()}: `python tests/bench/card.py`\n")
    print(
        "| | rows | prefill | transformers | tokens/s | transformers | share | load |\n" + "|---" * 8 + "|", flush=True
    )
    more: list[str] = []
    for name in given.only:
        with tempfile.TemporaryDirectory(prefix="mmcli-bench-") as folder:
            script("checkpoints.py", folder, name, "0")
            results = compare(folder, argparse.Namespace(**settings, batch=MODELS[name], tokens=given.tokens))
            print("\n".join(lines_of(name, results, MODELS[name])), flush=True)
            more += [f"{name}: {side} failed: {words}" for side, words in results["failed"].items()]
            if name == IN_INTEGERS[0]:
                for storage in ("none", "int8", "int4"):
                    rows = [str(count) for count in IN_INTEGERS[1]]
                    chosen = ["--model", folder, "--quantize", storage, "--batch", *rows]
                    said = script("steps.py", *chosen, "--rounds", "1", "--paths", "kernels")
                    more += [f"{name} {storage}, {line}" for line in said.splitlines() if ": a step" in line]
            if name == IN_A_FOLDER[0] and not given.skip_folder:
                rows = [str(count) for count in IN_A_FOLDER[1]]
                said = script("folder.py", "--model", folder, "--batch", *rows)
                more += [f"{name}, {line}" for line in said.splitlines() if line.startswith("batch")]
    print("\n" + "\n".join(f"    {line}" for line in more))


if __name__ == "__main__":
    main()
