"""Whether a checkpoint's files are what they were published as: checksums, structure, nothing missing."""

import hashlib
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from mmcli.errors import ModelError
from mmcli.hub.cache import cached
from mmcli.hub.files import below
from mmcli.hub.safetensors_files import read_index
from mmcli.hub.weight_files import FORMS, has_only_pickles, header_of


@dataclass(frozen=True)
class Finding:
    """What `verify` found about one file; `problem` is empty for a sound one."""

    file: Path
    problem: str = ""
    checked: str = ""  # how its content was checked: "sha256", "git-sha1" or "" where no checksum is known


def verify(name: str, revision: str | None = None) -> list[Finding]:
    """Check every file of a cached model, without network: checksums, safetensors headers, missing shards.

    The cache names a file's content by its checksum (SHA-256 for large files, git's SHA-1 for small ones); where the
    file system has no links, that name is lost and only the structure is checked. Raises ModelError where the model is
    not in the cache.
    """
    return [finding for model in cached(name, revision) for finding in verify_folder(model.folder)]


def verify_folder(folder: Path) -> list[Finding]:
    """`verify` for one folder; also for folders outside the cache, whose files have no checksums."""
    findings = [_verify_file(file) for file in sorted(below(folder)) if file.is_file() or file.is_symlink()]
    kinds = ("*.bin.index.json",) if has_only_pickles(folder) else ("*.safetensors.index.json",)
    for index in sorted(path for kind in kinds for path in folder.glob(kind)):
        try:
            absent = {shard for shard in read_index(index).values() if not (folder / shard).exists()}
        except ModelError as error:
            findings.append(Finding(index, error.what))
        else:
            whole = {form_index: single for single, form_index in FORMS}.get(index.name, "")
            if not whole or not (folder / whole).is_file():  # beside a whole file, an index says nothing
                findings += [Finding(folder / shard, "it is missing") for shard in sorted(absent)]
    if not (folder / "config.json").exists():
        findings.append(Finding(folder / "config.json", "it is missing"))
    return findings


def _verify_file(file: Path) -> Finding:
    if not file.exists():
        return Finding(file, "its content is missing from the cache")
    checksum = file.resolve().name if file.is_symlink() else ""
    kind = {64: "sha256", 40: "git-sha1"}.get(len(checksum), "")
    if kind and _digest(file, kind) != checksum:
        return Finding(file, f"its content does not have the {kind} checksum it was published with", kind)
    if file.suffix == ".safetensors" or fnmatch(file.name, "pytorch_model*.bin"):
        try:
            header_of(file)
        except ModelError as error:
            return Finding(file, error.what, kind)
    return Finding(file, "", kind)


def _digest(file: Path, kind: str) -> str:
    digest = hashlib.sha256()
    if kind == "git-sha1":
        digest = hashlib.sha1(f"blob {file.stat().st_size}\0".encode(), usedforsecurity=False)
    with file.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
