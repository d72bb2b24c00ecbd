"""From a model's name to a folder: the bundled one, a local folder, the cache, and only then the hub."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmcli.errors import ModelError
from mmcli.hub.json_files import read_json
from mmcli.hub.safetensors_files import weight_files

ASSETS = Path(__file__).parent.parent / "assets"
BUNDLED = {"nano": ASSETS / "nano", "whisper-tiny.en": ASSETS / "whisper-tiny.en"}

# What a checkpoint may consist of; code and pickles are never fetched.
PATTERNS = ("*.json", "*.safetensors", "tokenizer.model", "merges.txt", "chat_template.jinja")

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class Checkpoint:
    """A model's files on this machine."""

    name: str  # as the user gave it
    folder: Path
    revision: str | None  # the hub's commit; None for local folders and the bundled model
    config: dict[str, Any]  # config.json


def resolve(name: str, revision: str | None = None, *, download: bool = True) -> Checkpoint:
    """Find a model: "nano" (bundled), a folder, or "owner/name" on the Hugging Face Hub at `revision`.

    The hub is asked only for what is neither local nor in the cache, and never with `download=False`.
    Raises ModelError in words that say what to do: missing, gated, offline, or no model at all.
    """
    if name in BUNDLED:
        return open_folder(name, BUNDLED[name])
    path = Path(name).expanduser()
    if name and path.is_dir():
        return open_folder(name, path)
    if path.is_file():
        raise ModelError(f"{name} is a file", "Name the folder that holds config.json and the weights")
    if looks_like_path(name):
        raise ModelError(f"There is no folder {name}", "Check the path, or name a model of the hub as owner/name")
    if not _REPOSITORY.fullmatch(name):
        raise ModelError(
            f"There is no model {name}",
            f"Name a folder, a model of the hub as owner/name, or one that is bundled: {', '.join(BUNDLED)}",
        )
    folder = cached_folder(name, revision)
    if folder is None:
        if not download:
            raise ModelError(
                f"{name} is no folder here and not in the cache", f"Download it with: mmcli models pull {name}"
            )
        from mmcli.hub.download import fetch

        folder = fetch(name, revision)
    return open_folder(name, folder, folder.name)


def is_local(name: str) -> bool:
    """Whether a name means the bundled model or a path, so that the hub has no say in it."""
    return name in BUNDLED or looks_like_path(name) or Path(name).exists()


def looks_like_path(name: str) -> bool:
    """Whether a name can only be meant as a path: it starts or is built like one."""
    return name.startswith((".", "/", "~", os.sep)) or name.count("/") > 1 or "\\" in name or name.endswith("/")


def open_folder(name: str, folder: Path, revision: str | None = None) -> Checkpoint:
    """Read config.json of a checkpoint folder. Raises ModelError where it is missing or no JSON object."""
    return Checkpoint(name, folder, revision, read_json(folder / "config.json"))


def cached_folder(name: str, revision: str | None = None) -> Path | None:
    """The snapshot of a hub model in the cache if it is complete, found without any network; else None."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(
            snapshot_download(name, revision=revision, local_files_only=True, allow_patterns=list(PATTERNS))
        )
        weight_files(folder)
    except (LocalEntryNotFoundError, HFValidationError, FileNotFoundError, ModelError):
        return None
    # Other tools fetch parts of a model; only what can be run counts as here.
    here = {name for name in ("config.json", "tokenizer.json", "vocab.json") if (folder / name).is_file()}
    return folder if "config.json" in here and len(here) > 1 else None
