"""Checkpoint folders of every family with something wrong in one file, through the commands that read them."""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

from bench.hostile.command import command
from bench.hostile.damage import damage
from bench.hostile.pickle_damage import damage_pickle
from bench.hostile.safetensors_damage import damage_weights
from bench.hostile.tokenizer_damage import damage_tokenizer

EXAMPLES = Path(__file__).parents[3] / "examples"
IMAGE, SPEECH = EXAMPLES / "cat.jpg", EXAMPLES / "jfk.flac"
SHORT = ("--max-tokens", "40")
TRANSCRIBE = ("--temperature", "0", "--duration", "3")

# Base → the commands that run it, behind its folder's name.
RUNS: dict[str, tuple[tuple[object, ...], ...]] = {
    "nano": (("caption", IMAGE, *SHORT), ("segment", "cat", IMAGE, *SHORT)),
    "paligemma": (
        ("caption", IMAGE, *SHORT),
        ("segment", "cat", IMAGE, *SHORT),
        ("chat", IMAGE, "-m", "cat?", *SHORT),
    ),
    "paligemma2": (("detect", "cat", IMAGE, *SHORT), ("chat", IMAGE, "-m", "cat?", *SHORT)),
    "whisper": (
        ("transcribe", SPEECH, *TRANSCRIBE),
        ("transcribe", SPEECH, "--words", "--language", "de", *TRANSCRIBE),
    ),
    "whisper.en": (("transcribe", SPEECH, *TRANSCRIBE), ("transcribe", SPEECH, "--hint", "cat", *TRANSCRIBE)),
    "whisper-base": (("transcribe", SPEECH, *TRANSCRIBE),),
    "gemma3n-text": (("chat", "-m", "Who?", *SHORT),),
    "minicpmv-1.0": (("chat", IMAGE, "-m", "Who?", *SHORT),),
    "omnilmm": (("caption", IMAGE, *SHORT), ("chat", IMAGE, "-m", "Who?", *SHORT)),
    "minicpmv-2.0": (("caption", IMAGE, *SHORT), ("chat", IMAGE, "-m", "Who?", *SHORT)),
    "minicpmv-2.6": (("caption", IMAGE, *SHORT), ("chat", IMAGE, "-m", "Who?", *SHORT)),
    "mllama": (("caption", IMAGE, *SHORT), ("chat", IMAGE, "-m", "Who?", *SHORT)),
    "idefics3": (("caption", IMAGE, *SHORT), ("chat", IMAGE, "-m", "Who?", *SHORT)),
    "smolvlm": (("caption", IMAGE, *SHORT), ("chat", "-m", "Who?", *SHORT)),
    "fuyu": (("detect", "cat", IMAGE, *SHORT), ("chat", IMAGE, "-m", "<box>1, 2, 3, 4</box>", *SHORT)),
    "fuyu-pickle": (("caption", IMAGE, *SHORT), ("chat", "-m", "Who?", *SHORT)),
    "gemma3n": (("caption", IMAGE, *SHORT),),
}

VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    -1,
    0,
    1,
    2,
    3,
    7,
    10**7,
    10**12,
    -(10**12),
    2**31,
    2**32,
    2**63,
    2**64,
    10**400,
    0.5,
    -0.0,
    1e-300,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x",
    "../x",
    "/etc/passwd",
    "\x1b[2J\r\n",
    "x" * 100_000,
    "\ud800",
    "\0",
    "float32",
    [],
    [0],
    [1, 2],
    [None],
    [[[]]],
    ["x"],
    {},
    {"a": 1},
    {"": {}},
)


WEIGHTS = (".safetensors", ".bin")

_bases: Path  # a folder of sound checkpoints


def prepare(*names: str) -> None:
    """Write the sound checkpoints of these names, or all, and import what every command will need."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # a mask decoder that is missing is not downloaded
    import mmcli.models.load  # noqa: F401

    global _bases
    _bases = Path(tempfile.mkdtemp(prefix="hostile-bases-"))
    Finalize(None, shutil.rmtree, (_bases, True), exitpriority=1)
    program = Path(__file__).with_name("checkpoint_bases.py")
    subprocess.run([sys.executable, program, _bases, *(names or RUNS)], check=True, capture_output=True)


def base(name: str) -> Path:
    """The folder of a sound checkpoint."""
    return _bases / name


def make(rng: random.Random, folder: Path) -> list[tuple[object, ...]]:
    """A damaged copy of one base → command lines that read it."""
    name = rng.choice(list(RUNS))
    model = folder / "model"
    shutil.copytree(base(name), model, symlinks=True)
    mask_decoder = rng.choice(WAYS)(rng, model)
    run, *arguments = rng.choice(RUNS[name])
    chosen: list[tuple[object, ...]] = [(run, *arguments, "--model", model)]
    if mask_decoder is not None:
        chosen = [("segment", "cat", IMAGE, "--mask-decoder", mask_decoder, *SHORT)]
    extra = rng.randrange(8)
    if extra < 3:
        chosen.append(("inspect", model, *(["--json"] if extra else [])))
    elif extra == 3:
        chosen.append(("models", rng.choice(("info", "verify")), model))
    return chosen


def exercise(made: list[tuple[object, ...]]) -> str:
    """Run each; refused if one is."""
    from mmcli.errors import MmcliError

    refused = None
    for arguments in made:
        try:
            command(*arguments)
        except MmcliError as error:
            refused = error
    if refused:
        raise refused
    return "answered"


# -- ways to damage a folder -------------------------------------------------------------------------------------


def _damage_json(rng: random.Random, model: Path) -> None:
    """Wrong values in one of the JSON files, as valid JSON."""
    found = sorted(model.glob("*.json"))
    path = rng.choice([file for file in found if file.name != "tokenizer.json"] * 3 + found)
    content = json.loads(path.read_text())
    if path.name == "tokenizer.json" and rng.random() < 0.7:
        content = damage_tokenizer(rng, content)
    else:
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            places = _places(content)
            if places:
                _change(rng, *rng.choice(places))
    path.write_text(json.dumps(content))


def _places(content: Any) -> list[tuple[Any, Any]]:
    """(object or list, key or index) of all values; of long lists and large objects the first ones."""
    found, todo = [], [content]
    while todo:
        part = todo.pop()
        keys = list(part)[:200] if isinstance(part, dict) else range(min(len(part), 20))
        for key in keys:
            found.append((part, key))
            if isinstance(part[key], dict | list):
                todo.append(part[key])
    return found


def _change(rng: random.Random, part: Any, key: Any) -> None:
    value, way = part[key], rng.random()
    if way < 0.6:
        part[key] = rng.choice(VALUES)
    elif way < 0.7 and type(value) in (int, float):
        part[key] = rng.choice(
            (value + 1, value - 1, value * 2, value * 1000, -value, float(value), str(value), [value])
        )
    elif way < 0.75:
        part[key] = [value] * rng.choice((1, 2, 100_000 if len(str(value)) < 100 else 3))
    elif way < 0.8:
        for _ in range(rng.choice((50, 400))):
            value = {"a": value} if rng.random() < 0.5 else [value]
        part[key] = value
    elif way < 0.9:
        part.pop(key)
    elif isinstance(part, dict):
        part[rng.choice(("hidden_size", "x" * 1000, "", "\x1b", "type", "model_type"))] = part.pop(key)


def _damage_bytes(rng: random.Random, model: Path) -> None:
    """One of the small files with its bytes damaged, or something else in its place."""
    path = rng.choice([file for file in sorted(model.iterdir()) if file.suffix not in WEIGHTS])
    way, data = rng.random(), path.read_bytes()
    if way < 0.6:
        data = damage(data, rng)
    else:
        data = rng.choice(
            (
                b"",
                b"{}",
                b"[]",
                b"null",
                b"[" * 1_000_000,
                b'{"a":' * 100_000,
                b"\xef\xbb\xbf" + data,
                data.decode().encode("utf-16"),
                b'{"a": "' + b"x" * 40_000_000 + b'"}',
                b"[" + b"{}," * 5_000_000 + b"{}]",
                b'{"a": ' + b"9" * 100_000 + b"}",
                b"\x80\x04" + data,
                data + data,
                b"PK\x03\x04" + data,
                b"\0" * 100_000,
            )
        )
    path.unlink()
    path.write_bytes(data)


def _damage_weights(rng: random.Random, model: Path) -> Path | None:
    """The weights, or the mask decoder → the latter's path if it is another file than the folder's."""
    found = sorted(path for path in model.iterdir() if path.suffix in WEIGHTS)
    if not found:
        return None
    path = rng.choice(found)
    data = path.read_bytes()
    path.unlink()
    if path.suffix == ".bin":
        path.write_bytes(damage_pickle(rng, data))
        return None
    if path.name == "mask_decoder.safetensors" and rng.random() < 0.6:
        return _mask_decoder(rng, data, model)
    path.write_bytes(damage(data, rng) if rng.random() < 0.2 else damage_weights(rng, data))
    return None


def _mask_decoder(rng: random.Random, data: bytes, model: Path) -> Path:
    """A damaged .npz of the same arrays."""
    import io

    import numpy as np
    from safetensors.numpy import load

    arrays = load(data)
    for _ in range(rng.randrange(3)):
        name = rng.choice(list(arrays))
        value = arrays[name]
        arrays[name] = rng.choice(
            (
                value[:1],
                value.astype(np.int64),
                value.astype(np.complex64),
                np.zeros(()),
                np.zeros((0, 4)),
                value.T,
                np.full_like(value, np.nan),
                np.zeros(20_000_000, np.float32),
                np.array(["a", "b"]),
                value.astype(">f4"),
            )
        )
    if rng.random() < 0.2:
        arrays[rng.choice(("../x", "/etc/x", "x" * 500, ""))] = np.zeros(1)
    stream = io.BytesIO()
    (np.savez_compressed if rng.random() < 0.5 else np.savez)(stream, **arrays)
    packed = stream.getvalue()
    path = model / rng.choice(("mask.npz", "mask.npz", "mask.safetensors", "mask.pt"))
    path.write_bytes(damage(packed, rng) if rng.random() < 0.5 else packed)
    return path


def _damage_file(rng: random.Random, model: Path) -> None:
    """One file missing, or something that is no file, or another one, in its place."""
    path = rng.choice(sorted(model.iterdir()))
    others = [file for file in sorted(model.iterdir()) if file != path]
    path.unlink()
    way = rng.randrange(9)
    if way == 0:
        os.mkfifo(path)
    elif way == 1:
        path.mkdir()
    elif way == 2:
        path.symlink_to(rng.choice((path.name, "nowhere", "/dev/zero", "/etc/passwd", "..", "/proc/self/mem")))
    elif way == 3:
        with path.open("wb") as file:
            file.truncate(9 << 30)  # it takes no place on the disk
    elif way == 4 and others:
        shutil.copy(rng.choice(others), path)
    elif way == 5:
        path.write_bytes(rng.randbytes(1000))
    elif way == 6 and path.suffix == ".safetensors":
        path.write_bytes((9 << 30).to_bytes(8, "little") + b"{" * 1000)


WAYS = (_damage_json,) * 9 + (_damage_bytes,) * 2 + (_damage_weights,) * 4 + (_damage_file,) * 2
