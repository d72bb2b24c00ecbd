"""Hostile inputs by the thousand: is each answered or refused in one sentence, within 10 s and 2 GB?

    python tests/bench/hostile --kind images --count 5000 --seed 1

A **kind** of input is a module of this folder with two functions, found by its name (`images.py`: `--kind images`):

    def make(rng: random.Random, folder: pathlib.Path) -> object
        Write one hostile input into the empty `folder` and return what `exercise` needs (its path, arguments, …).
        All chance comes from `rng`, so that `--seed S --only N` makes input N again.

    def exercise(made: object) -> str
        Let mmcli work on it, as a command would, and return a word or two for the tally ("read", "answered").
        Raising an MmcliError means "refused", which is as good. Every other exception is a traceback, hence a fault.
        Kinds that run whole commands call `command.command`, which does this from the exit code and stderr.

A kind may also define:

    def prepare() -> None         what each worker process does once, uncounted (import torch, start a server, …)
    SECONDS = 10.0, BYTES = 2e9   other bounds than these
    KILLED = 60.0                 seconds after which a worker that gives no answer is killed, also a fault

Inputs are made and exercised in worker processes, each input measured by itself: wall time, and the greatest resident
size while it was at hand (Linux; reset before each). A worker that dies or hangs is a fault of its own and is replaced;
its address space is bounded, so that no input takes the machine. What is printed to stderr by libraries is left alone.
`runner.trial` is what the test suite calls with a small count; `damage.py` has ways to damage bytes that kinds share.
"""
