"""The whole table of a GPU by one command, as it goes into RESULTS.md: mmcli beside transformers, both in this run.

    python tests/bench/card.py                         all of it; about eight minutes on an H200 with 16 cores
    python tests/bench/card.py --seconds 300           what is not reached by then is left out, and said
    python tests/bench/card.py --only 3b mllama-11b    some models
    python tests/bench/card.py --parts beside          without integers and folders

Random weights of the published sizes, bfloat16, 64 tokens written, one round each. What matters most comes first, every
line is printed as soon as it is known, and the weights of the next model are made while one is measured. The share is
of the rate of a copy within the memory, for the bytes of weights that a step must read. Integers are measured by
`steps.py`, folders by `folder.py`, Whisper by `speech.py`; the last lines are transformers with a cache of fixed size,
for which it compiles its step.
"""

import argparse
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent)]

from run import compare, script  # noqa: E402
from tables import seconds_text  # noqa: E402

# What is measured of which models, and with how many rows.
WORK = (
    ("speech", "large-v3-turbo", (1, 8)),
    ("beside", "3b", (1, 32)),
    ("integers", "3b", (1, 16)),
    ("beside", "e4b", (1, 16)),
    ("folder", "3b", (16, 32)),
    ("beside", "3b-2", (1, 32)),
    ("beside", "mllama-11b", (1, 8)),
    ("beside", "fuyu-8b", (1, 8)),
    ("compiled", "3b", (1, 32)),
)
HEADS = {
    "speech": ("Whisper", "windows", "encoding", "transformers", "a step", "tokens/s", "transformers", "share", "load"),
    "beside": ("model", "rows", "prefill", "transformers", "a step", "tokens/s", "transformers", "share", "load"),
    "integers": ("weights", "rows", "a step", "tokens/s", "share", "times bfloat16"),
    "folder": ("a folder", "rows", "photographs/s", "tokens/s", "of one length", "share of that"),
    "compiled": ("transformers, compiled", "rows", "prefill", "tokens/s"),
}
WITHOUT_FILES = ("speech",)
TOGETHER = 60_000_000_000  # bytes that the weights of all models take that are there at a time, and some more
STEP = re.compile(r"batch (\d+), kernels: a step ([\d.]+) ms, ([\d.]+) tokens/s, ([\d.]+)% of")
RATE = re.compile(r"batch (\d+), rows *, (equal|unlike) *: *([\d.]+) photographs/s, *(\d+) tokens/s")
WINDOWS_SHARE = re.compile(r"\(.*?/s\): mmcli (\d+%)")
SETTINGS = {"device": "cuda", "dtype": "bfloat16", "table": "auto", "threads": None, "rounds": 1, "repeats": 2}


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = list(dict.fromkeys(name for _, name, _ in WORK))
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--parts", nargs="+", choices=HEADS, default=list(HEADS))
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="that all of it may take")
    return parser.parse_args()


class Card:
    """Prints tables until the time is over."""

    def __init__(self, tokens: int, end: float):
        self.tokens, self._end, self._part = tokens, end, ""

    def left(self) -> float | None:
        """Seconds for a process; RuntimeError where there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise RuntimeError("the time was over")
        return None if left == float("inf") else left

    def show(self, part: str, *cells: str) -> None:
        """A line of the table of a part, with its head where another part was before it."""
        head = HEADS[part]
        if part != self._part:
            print(f"\n| {' | '.join(head)} |\n{'|---' * len(head)}|")
            self._part = part
        print(f"| {' | '.join(cells + ('',) * (len(head) - len(cells)))} |", flush=True)

    @contextmanager
    def failing_alone(self, part: str, name: str) -> Iterator[None]:
        """The rest of the table goes on, and its place says what happened."""
        try:
            yield
        except RuntimeError as error:
            self.show(part, name, "", f"failed: {error}")

    def beside(self, name: str, folder: str, rows: tuple[int, ...]) -> None:
        """mmcli and transformers on the same inputs."""
        settings = argparse.Namespace(**SETTINGS, batch=rows, tokens=self.tokens)
        results = compare(folder, settings, left=self.left)
        for place, batch in enumerate(rows if results["samples"] else ()):
            self.show("beside", name, str(batch), *figures(results["samples"], place, batch))
        for side, words in results["failed"].items():
            self.show("beside", name, "", f"{side} failed: {words}")

    def compiled(self, name: str, folder: str, rows: tuple[int, ...]) -> None:
        """transformers at its best, one process for each number of rows."""
        for batch in rows:
            settings = argparse.Namespace(**SETTINGS, batch=(batch,), tokens=self.tokens)
            results = compare(folder, settings, ["transformers, compiled"], self.left)
            for words in results["failed"].values():
                self.show("compiled", name, str(batch), f"failed: {words}")
            for [[sample]] in results["samples"].values():
                self.show("compiled", name, str(batch), seconds_text(sample["prefill"]), f"{sample['rate']:,.0f}")

    def integers(self, name: str, folder: str, rows: tuple[int, ...]) -> None:
        """Steps with the decoder's weights as they are, in 8 and in 4 bits."""
        usual: dict[str, float] = {}
        for storage, kind in (("none", "bfloat16"), ("int8", "int8"), ("int4", "int4")):
            chosen = ["--model", folder, "--quantize", storage, "--batch", *map(str, rows), "--paths", "kernels"]
            chosen += ["--tokens", str(self.tokens), "--rounds", "1"]
            with self.failing_alone("integers", f"{name}, {kind}"):
                for batch, step, rate, share in STEP.findall(script("steps.py", *chosen, seconds=self.left())):
                    times = f"{usual.setdefault(batch, float(step)) / float(step):.2f}"
                    cells = f"{step} ms", f"{float(rate):,.0f}", f"{float(share):.0f}%", times
                    self.show("integers", f"{name}, {kind}", batch, *cells)

    def folder(self, name: str, folder: str, rows: tuple[int, ...]) -> None:
        """A folder whose answers have unlike lengths, beside one whose answers have the same."""
        for batch in map(str, rows):
            said = script("folder.py", "--model", folder, "--batch", batch, "--paths", "rows", seconds=self.left())
            rates = {kind: (float(each), int(tokens)) for _, kind, each, tokens in RATE.findall(said)}
            (equal, _), (unlike, tokens) = rates["equal"], rates["unlike"]
            self.show("folder", name, batch, f"{unlike}", f"{tokens:,}", f"{equal}", f"{unlike / equal:.0%}")

    def speech(self, name: str, _: str, rows: tuple[int, ...]) -> None:
        """A Whisper on windows of 30 seconds."""
        chosen = ["--random", name, "--device", "cuda", "--dtype", "bfloat16", "--rounds", "3", "--tokens", "200"]
        for batch in map(str, rows):
            with self.failing_alone("speech", name):
                said = script("speech.py", *chosen, "--batch", batch, seconds=self.left())
                cells = {label: values for label, *values in (re.split(r" {2,}", line) for line in said.splitlines())}
                middle = {label: [value.partition(" (")[0] for value in values] for label, values in cells.items()}
                encoding, rates = middle["encoding alone"], middle["tokens/s while decoding"]
                step, share = middle["a step of decoding"][0], WINDOWS_SHARE.findall(said)[0]
                load = " / ".join(middle["loading"][:2]) if "loading" in middle else ""
                self.show("speech", name, batch, *encoding[:2], step, *rates[:2], share, load)


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


class Weights:
    """Folders of random weights: those of the next model are made while one is measured; gone after the last use."""

    def __init__(self, root: Path, uses: list[str], left: Callable[[], float | None]):
        self._root, self._uses, self._left = root, uses, left
        self._pool = ThreadPoolExecutor(1)
        self._made: dict[str, Future] = {}
        self._begin(uses[:1])

    def _begin(self, names: list[str]) -> None:
        for name in names:
            (self._root / name).mkdir()
            self._made[name] = self._pool.submit(self._write, name)

    def _write(self, name: str) -> None:
        script("checkpoints.py", str(self._root / name), name, seconds=self._left())

    def take(self, name: str) -> str:
        """The folder; RuntimeError with the reason where it could not be made."""
        self._begin([name] if name not in self._made else [])
        try:
            self._made[name].result()
        finally:
            later = [each for each in dict.fromkeys(self._uses) if each not in self._made]
            self._begin(later[: all(made.done() for made in self._made.values())])
        return str(self._root / name)

    def done(self, name: str) -> None:
        """One use is over."""
        self._uses.remove(name)
        if name not in self._uses:
            shutil.rmtree(self._root / name, ignore_errors=True)


def main() -> None:
    import torch

    given, start = options(), time.monotonic()
    memory = Path("/dev/shm")
    place = memory if memory.is_dir() and shutil.disk_usage(memory).free > TOGETHER else None
    work = [each for each in WORK if each[0] in given.parts and each[1] in given.only]
    device = torch.cuda.get_device_name()
    print(f"## {time.strftime('%Y-%m-%d')}, one {device}: `python tests/bench/card.py`", flush=True)
    card = Card(given.tokens, start + given.seconds)
    with tempfile.TemporaryDirectory(prefix="mmcli-bench-", dir=place) as root:
        weights = Weights(Path(root), [name for part, name, _ in work if part not in WITHOUT_FILES], card.left)
        for part, name, rows in work:
            with card.failing_alone(part, name):
                folder = "" if part in WITHOUT_FILES else weights.take(name)
                getattr(card, part)(name, folder, rows)
            if part not in WITHOUT_FILES:
                weights.done(name)
    print(f"\nAll of it took {time.monotonic() - start:.0f} s.")


if __name__ == "__main__":
    main()
