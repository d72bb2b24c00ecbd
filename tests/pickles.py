"""Files that torch.save wrote, and files that look like it."""

import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import torch


class Calls:
    """What pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def saved(content: object, **options) -> bytes:
    """What torch.save writes."""
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def old(content: object) -> bytes:
    """The same as PyTorch wrote it before 1.6."""
    return saved(content, _use_new_zipfile_serialization=False)


def entries(data: bytes) -> dict[str, bytes]:
    """What is in an archive."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def archive(content: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as written:
        for name, data in content.items():
            written.writestr(name, data)
    return file.getvalue()


def with_pickle(data: bytes, change) -> bytes:
    """A file of the new form with its pickle changed."""
    content = entries(data)
    [name] = [name for name in content if name.endswith("data.pkl")]
    return archive(content | {name: change(content[name])})


def system(command: str, protocol: int = 2) -> bytes:
    """A plain pickle that runs a command."""
    return pickle.dumps(Calls(os.system, command), protocol)


def write_shards(folder: Path, shards: list[dict[str, torch.Tensor]], **more: str) -> None:
    """Shards with their index; `more` are further entries of it, with _ for a dot."""
    weight_map = {name.replace("_", "."): file for name, file in more.items()}
    for number, tensors in enumerate(shards, start=1):
        name = f"pytorch_model-{number:05}-of-{len(shards):05}.bin"
        (folder / name).write_bytes(saved(tensors))
        weight_map |= dict.fromkeys(tensors, name)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
