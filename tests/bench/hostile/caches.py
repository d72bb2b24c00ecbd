"""Caches of downloaded models that are not as huggingface_hub leaves them, through the commands that look there."""

import contextlib
import os
import random
import shutil
import subprocess
from pathlib import Path

from bench.hostile import checkpoints
from bench.hostile.command import command

NAME = "owner/name"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
COMMANDS = (
    ("models", "list"),
    ("models", "list", "--json"),
    ("models", "info", NAME, "--offline"),
    ("models", "verify", NAME),
    ("models", "remove", NAME, "--yes"),
    ("inspect", NAME, "--offline"),
    ("caption", checkpoints.IMAGE, "--model", NAME, "--offline", "--max-tokens", "4"),
)
FOLDERS = (
    "models--",
    "models--x",
    "models--a--b--c",
    "models--\x1b[2J--x",
    "models--" + "x" * 200,
    "models--../x".replace("/", "-"),
)


def prepare() -> None:
    """Write the one checkpoint that is in the caches."""
    checkpoints.prepare("paligemma")


def make(rng: random.Random, folder: Path) -> tuple[Path, list[tuple[object, ...]]]:
    """A cache with one model, or what was made of it, and others that are none; and commands that look into it."""
    root = folder / "hub"
    place = root / f"models--{NAME.replace('/', '--')}"
    snapshot = place / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (place / "blobs").mkdir()
    for number, file in enumerate(sorted(checkpoints.base("paligemma").iterdir())):
        shutil.copy(file, place / "blobs" / f"{number:064x}")
        (snapshot / file.name).symlink_to(f"../../blobs/{number:064x}")
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(COMMIT)
    chosen = rng.choices(WAYS, k=rng.choice((1, 1, 2, 4)))
    for way in sorted(chosen, key=lambda way: way is _special):  # nothing is written or deleted through a link
        with contextlib.suppress(OSError):  # what an earlier one took away
            way(rng, place, snapshot)
    return root, rng.sample(COMMANDS, 3)


def exercise(made: tuple[Path, list[tuple[object, ...]]]) -> str:
    """Run each command; refused if one is."""
    import huggingface_hub.constants

    from mmcli.errors import MmcliError

    refused = None
    root, commands = made
    huggingface_hub.constants.HF_HUB_CACHE = str(root)
    try:
        for arguments in commands:
            try:
                command(*arguments)
            except MmcliError as error:
                refused = error
    finally:
        _delete(root)
    if refused:
        raise refused
    return "answered"


def _delete(path: Path) -> None:
    subprocess.run(["rm", "-rf", path], check=False)  # Python itself cannot delete what is so deep


# -- ways to damage a cache --------------------------------------------------------------------------------------


def _reference(rng: random.Random, place: Path, snapshot: Path) -> None:
    """A branch that stands for something odd."""
    name = rng.choice(("main", "main", "pr/1", "x" * 200, "\x1b[2J", "é\n"))
    path = place / "refs" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(
        rng.choice(
            (b"", b"\n", COMMIT.encode() + b"\r\n", b"\xff\xfe", b"../../x", b"/", b"\0", b"x" * 10_000_000, b"0123456")
        )
    )


def _special(rng: random.Random, place: Path, snapshot: Path) -> None:
    """A pipe, a folder, or a link that leads in a circle, nowhere, or out, in the place of something."""
    path = rng.choice(
        (place / "refs" / "main", snapshot / "config.json", snapshot / "model.safetensors", snapshot, place / "refs")
    )
    _delete(path)
    way = rng.randrange(4)
    if way == 0:
        os.mkfifo(path)
    elif way == 1:
        path.mkdir()
    elif way == 2:
        path.symlink_to(rng.choice((path.name, "nowhere", "/dev/zero", "..", ".")))


def _missing(rng: random.Random, place: Path, snapshot: Path) -> None:
    path = rng.choice(sorted({*place.iterdir(), *snapshot.iterdir(), *(place / "blobs").iterdir()}))
    _delete(path)


def _deep(rng: random.Random, place: Path, snapshot: Path) -> None:
    """Folders within folders, deeper than Python calls itself."""
    at = os.open(rng.choice((snapshot, place / "refs", place)), os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)


def _many(rng: random.Random, place: Path, snapshot: Path) -> None:
    """Thousands of revisions, or of references, or of files."""
    parent = rng.choice((place / "snapshots", place / "refs", snapshot))
    for number in range(2000):
        if parent.name == "snapshots":
            (parent / f"{number:040x}").mkdir()
        else:
            (parent / f"r{number}").write_text(COMMIT)


def _others(rng: random.Random, place: Path, snapshot: Path) -> None:
    """Entries that are no model's."""
    path = place.parent / rng.choice(FOLDERS)
    way = rng.randrange(4)
    if way == 0:
        path.write_bytes(b"")
    elif way == 1:
        path.symlink_to(rng.choice((path.name, place.name, "/")))
    else:
        (path / "snapshots" / rng.choice((COMMIT, "\x1b]0;x\x07", "x"))).mkdir(parents=True)
        if way == 3:
            shutil.copy(checkpoints.base("paligemma") / "config.json", next((path / "snapshots").iterdir()))


WAYS = (_reference, _special, _special, _missing, _missing, _deep, _many, _others)
