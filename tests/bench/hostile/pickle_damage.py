"""Ways to damage a file that torch.save wrote: its bytes, its pickle within a sound archive, and what it is made of."""

import io
import os
import random
import zipfile
from typing import Any

from bench.hostile.damage import damage


class Call:
    """What pickles as a call."""

    def __init__(self, function: Any, *arguments: Any):
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def damage_pickle(rng: random.Random, data: bytes) -> bytes:
    """The damaged file."""
    import torch

    way = rng.random()
    if way < 0.2:
        return damage(data, rng)
    if way < 0.7:
        return _within(rng, data)
    content: Any = torch.load(io.BytesIO(data), weights_only=True)
    name = rng.choice(list(content))
    content[name] = rng.choice(
        (
            Call(os.system, "exit 99"), Call(eval, "1 / 0"), 3, None, [content[name]], {name: content[name]},
            content[name].double(), content[name].to_sparse(), content[name].to(torch.complex64),
            torch.ones(1).expand(1 << 20, 1 << 20),
            content[name][:0], content[name].clone().fill_(float("nan")), torch.nn.Parameter(content[name]),
        )
    )  # fmt: skip
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=rng.random() < 0.7)
    written = file.getvalue()
    return damage(written, rng) if rng.random() < 0.2 else written


def _within(rng: random.Random, data: bytes) -> bytes:
    """The archive written anew with one of its entries damaged, mostly the pickle."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    pickles = [name for name in entries if name.endswith("data.pkl")]
    name = rng.choice(pickles * 3 + list(entries)[:4])
    entries[name] = damage(entries[name], rng) if entries[name] else b"x"
    file = io.BytesIO()
    kind = zipfile.ZIP_DEFLATED if rng.random() < 0.1 else zipfile.ZIP_STORED
    with zipfile.ZipFile(file, "w", kind) as archive:
        for key, value in entries.items():
            archive.writestr(key, value)
    return file.getvalue()
