"""Which weights a folder holds, quickly: for models that no revision of the hub tells apart."""

import hashlib
import json
from functools import cache
from pathlib import Path

from mmcli.hub.resolve import Checkpoint
from mmcli.hub.weight_files import has_only_pickles, weight_files

MOST = 1 << 27  # bytes of a JSON file that is read
SAMPLES = 1000  # of a pickle; behind the numbers such a file holds a checksum of each tensor
SAMPLE = 4096  # bytes of each tensor: whoever trains a model changes them


def weights_of(checkpoint: Checkpoint) -> str:
    """The hub's commit, or for folders and bundled models a hash of their files; with that of an adapter's."""
    own = checkpoint.revision or _hash(checkpoint.folder)
    return own if checkpoint.adapter is None else f"{own}+{_hash(checkpoint.adapter)}"


@cache
def _hash(folder: Path) -> str:
    """Of all JSON files, and of the beginning of every tensor; of pickles parts at even distances."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.json")):
        if not path.is_file() or path.stat().st_size > MOST:
            continue  # no model was read from it
        digest.update(path.name.encode() + path.read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        if path.is_file():
            digest.update(path.name.encode())
            _add_tensors(digest, path)
    for path in weight_files(folder) if has_only_pickles(folder) else ():
        digest.update(path.name.encode())
        _add_parts(digest, path)
    return digest.hexdigest()


def _add_tensors(digest: "hashlib._Hash", path: Path) -> None:
    """The beginning of every tensor; of a file that no weights can be read from parts of what is in it."""
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        try:
            if size > MOST:
                raise ValueError("no header is so long")
            header = file.read(size)
            places = [entry.get("data_offsets", (0, 0)) for entry in json.loads(header).values()]  # notes have none
            digest.update(header)
            for start, end in places:
                file.seek(8 + size + start)
                digest.update(file.read(max(0, min(SAMPLE, end - start))))
        except (ValueError, AttributeError, TypeError, OSError, OverflowError, RecursionError):
            _add_parts(digest, path)  # such as a mask decoder that nobody has asked for yet


def _add_parts(digest: "hashlib._Hash", path: Path) -> None:
    """The size of a file and parts of it at even distances."""
    size = path.stat().st_size
    digest.update(f" {size}".encode())
    with open(path, "rb") as file:
        for start in range(0, size, max(1, size // SAMPLES)):
            file.seek(start)
            digest.update(file.read(SAMPLE))
