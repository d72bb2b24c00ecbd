"""The whole table of a GPU by one command, as it goes into RESULTS.md: mmcli beside transformers, both in this run.

    python tests/bench/card.py                         all of it; about five minutes on an H100
    python tests/bench/card.py --only 3b mllama-11b    some models
    python tests/bench/card.py --parts beside          without integers and folders

Random weights of the published sizes, bfloat16, 64 tokens written, one round each; what matters most comes first, and
every line is printed as soon as it is known. The share is of the rate of a copy within the memory, for the bytes of
weights that a step must read. Integers are measured by `steps.py`, folders by `folder.py`: their share is that of the
photographs a second with answers of one length.
"""

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent)]

from run import compare, script  # noqa: E402
from tables import seconds_text  # noqa: E402

PARTS = ("beside", "integers", "folder", "speech")
# Models, what is measured of them, and with how many rows.
WORK = (
    ("3b", {"beside": (1, 32), "integers": (1, 16), "folder": (16, 32)}),
    ("e4b", {"beside": (1, 16)}),
    ("3b-2", {"beside": (1, 32)}),
    ("large-v3-turbo", {"speech": (1, 16)}),
    ("mllama-11b", {"beside": (1, 8)}),
    ("fuyu-8b", {"beside": (1, 8)}),
)
HEAD = ("", "rows", "prefill", "transformers", "a step", "tokens/s", "transformers", "share", "load")
STEP = re.compile(r"batch (\d+), kernels: a step ([\d.]+) ms, ([\d.]+) tokens/s, ([\d.]+)% of")
RATE = re.compile(r"batch (\d+), rows *, unlike: .*?([\d.]+) photographs/s, *(\d+) tokens/s")
WINDOWS_SHARE = re.compile(r"\(.*?/s\): mmcli (\d+%)")
SHARE = re.compile(r"batch \d+, rows: answers of unlike length at (\d+)%")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [name for name, _ in WORK]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--tokens", type=int, default=64)
    return parser.parse_args()


def show(*cells: str) -> None:
    """A line of the table."""
    print(f"| {' | '.join(cells + ('',) * (len(HEAD) - len(cells)))} |", flush=True)


def beside(name: str, folder: str, rows: tuple[int, ...], tokens: int) -> None:
    """mmcli and transformers on the same inputs."""
    settings = {"device": "cuda", "dtype": "bfloat16", "table": "auto", "threads": None, "rounds": 1, "repeats": 2}
    results = compare(folder, argparse.Namespace(**settings, batch=rows, tokens=tokens))
    for place, batch in enumerate(rows):
        show(name, str(batch), *figures(results["samples"], place, batch))
    for side, words in results["failed"].items():
        show(name, "", f"{side} failed: {words}")


def figures(samples: dict[str, Any], place: int, batch: int) -> Iterator[str]:
    """The cells of one batch, behind its name and rows."""
    ours, theirs = (samples.get(side, [[]])[0][place : place + 1] for side in ("mmcli", "transformers"))
    for side in (ours, theirs):
        yield seconds_text(side[0]["prefill"]) if side else "–"
    yield seconds_text(batch / ours[0]["rate"]) if ours else "–"
    for side in (ours, theirs):
        yield f"{side[0]['rate']:,.0f}" if side else "–"
    yield f"{ours[0]['rate'] / batch * ours[0]['read'] / ours[0]['copy']:.0%}" if ours else "–"
    loads = [side[0].get("load") if side else None for side in (ours, theirs)]
    yield "" if place else " / ".join("–" if load is None else f"{load:.1f} s" for load in loads)


def integers(name: str, folder: str, rows: tuple[int, ...], tokens: int) -> None:
    """Steps with the decoder's weights as they are, in 8 and in 4 bits."""
    for storage in ("none", "int8", "int4"):
        chosen = ["--model", folder, "--quantize", storage, "--batch", *map(str, rows), "--tokens", str(tokens)]
        with failing_alone(f"{name}, {storage}"):
            said = script("steps.py", *chosen, "--rounds", "1", "--paths", "kernels")
            for batch, step, rate, share in STEP.findall(said):
                show(f"{name}, {storage}", batch, "", "", f"{step} ms", f"{float(rate):,.0f}", "", f"{share}%")


def answered(name: str, folder: str, rows: tuple[int, ...], tokens: int) -> None:
    """A folder whose answers have unlike lengths."""
    with failing_alone(f"{name}, a folder"):
        said = script("folder.py", "--model", folder, "--batch", *map(str, rows), "--paths", "rows")
        for (batch, photographs, rate), share in zip(RATE.findall(said), SHARE.findall(said), strict=True):
            show(f"{name}, a folder", batch, f"{photographs}/s", "", "", f"{int(rate):,}", "", f"{share}%")


def speech(name: str, _: str, rows: tuple[int, ...], tokens: int) -> None:
    """A Whisper on windows of 30 seconds, where the encoder stands in the place of the prefill."""
    for batch in rows:
        with failing_alone(f"Whisper {name}"):
            chosen = [
                "--random",
                name,
                "--device",
                "cuda",
                "--dtype",
                "bfloat16",
                "--batch",
                str(batch),
                "--rounds",
                "1",
            ]
            said = script("speech.py", *chosen, "--tokens", str(tokens))
            cells = {label: values for label, *values in (re.split(r" {2,}", line) for line in said.splitlines())}
            encoding, rates = cells["encoding alone"], cells["tokens/s while decoding"]
            step, share = cells["a step of decoding"][0], WINDOWS_SHARE.findall(said)[0]
            show(f"Whisper {name}", str(batch), *encoding[:2], step, *rates[:2], share)


@contextmanager
def failing_alone(name: str) -> Iterator[None]:
    """The rest of the table goes on, and its place says what happened."""
    try:
        yield
    except RuntimeError as error:
        show(name, "", f"failed: {error}")


def main() -> None:
    import torch

    given = options()
    print(f"## {time.strftime('%Y-%m-%d')}, one {torch.cuda.get_device_name()}: `python tests/bench/card.py`\n")
    show(*HEAD)
    print("|---" * len(HEAD) + "|", flush=True)
    measures = {"beside": beside, "integers": integers, "folder": answered, "speech": speech}
    for name, parts in WORK:
        if name not in given.only:
            continue
        with tempfile.TemporaryDirectory(prefix="mmcli-bench-") as folder, failing_alone(name):
            if "speech" not in parts:  # which needs no files
                script("checkpoints.py", folder, name, "0")
            for part in given.parts:
                if part in parts:
                    measures[part](name, folder, parts[part], given.tokens)


if __name__ == "__main__":
    main()
