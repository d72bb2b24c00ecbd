"""From a model's name to a folder: the bundled one, a local folder, the cache, and only then the hub."""

import os
import re
import shlex
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mmcli.errors import ModelError
from mmcli.hub import cache
from mmcli.hub.json_files import read_json
from mmcli.hub.known import SHORT_NAMES
from mmcli.hub.known_models import BY_NAME
from mmcli.hub.layout import BUNDLED
from mmcli.hub.other_formats import not_a_checkpoint, not_a_folder
from mmcli.hub.weight_files import has_only_pickles
from mmcli.offline import is_offline

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
_PAGE = re.compile(r"(?:https?://)?(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+)(?:/(?:tree|blob)/([\w.-]+).*)?/?")

_TAGGED = re.compile(r"([A-Za-z0-9][\w.-]*/[\w.-]+)[@:]([\w./-]+)", re.ASCII)


@dataclass(frozen=True)
class Checkpoint:
    """A model's files on this machine."""

    name: str  # as the user gave it
    folder: Path
    revision: str | None  # the hub's commit; None for local folders and the bundled model
    config: dict[str, Any]  # config.json
    note: str = ""  # what the user should know: why this revision, that the weights are pickles
    adapter: Path | None = None  # a folder of weights that are put on top of them


def resolve(name: str, revision: str | None = None, *, download: bool = True) -> Checkpoint:
    """Find a model: a bundled one, a folder, or "owner/name" on the Hugging Face Hub at `revision`.

    Some of the hub have short names as well, which stand for a commit: where that is neither in the cache nor can be
    had, what the cache has of the repository is taken.

    The hub is asked only for what is neither local nor in the cache, and never with `download=False`.
    Raises ModelError in words that say what to do: missing, gated, offline, or no model at all.
    """
    if name in BUNDLED:
        _without_revision(f"{name} is bundled", revision)
        return open_folder(name, BUNDLED[name])
    path = _as_path(name)
    if name and path.is_dir():
        if _is_storage(path):
            return open_cached(path, name, revision)
        _without_revision(f"{name} is a folder", revision)
        return open_folder(name, path)
    if name and path.exists():
        raise not_a_folder(path)
    name, pinned = hub_name(name), pinned_revision(name) if revision is None else None
    if not _REPOSITORY.fullmatch(name):
        raise _no_such_model(name)
    found = _cached(name, revision, pinned, any_revision=not download or is_offline())
    if found is None:
        if not download:
            raise _not_here(name, revision)
        from mmcli.hub.download import fetch

        try:
            found = cache.Found(fetch(name, revision or pinned))
        except ModelError:  # no network, or the licence was withdrawn: what was downloaded before still runs
            found = cache.find(cache.storage(name), revision, any_revision=True)
            if found is None:
                raise
    return open_folder(name, found.folder, found.folder.name, found.note)


def _without_revision(what: str, revision: str | None) -> None:
    """Refuse a revision of a model that has none, rather than to take other weights than were asked for."""
    if revision is not None:
        raise ModelError(f"{what}, which has no revision {revision}", "Leave it out, or name a model of the hub")


def _cached(name: str, revision: str | None, pinned: str | None, any_revision: bool) -> cache.Found | None:
    """What the cache has of a hub model at `revision`; where that is left open at `pinned`, else as main is."""
    place = cache.storage(name)
    found = cache.find(place, pinned) if pinned else None
    return found or cache.find(place, revision, any_revision=any_revision)


def open_cached(place: Path, name: str, revision: str | None = None) -> Checkpoint:
    """The checkpoint in `place`, the folder that a cache keeps for one model. Raises ModelError."""
    found = cache.find(place, revision, any_revision=True)
    if found is None:
        own = cache.model_name(place)
        what = f"{place} is where the cache keeps {own}, but no complete revision{f' {revision}' if revision else ''}"
        raise ModelError(what, f"Name the model as {own}, or download it with: mmcli models pull {own}")
    return open_folder(name, found.folder, found.folder.name, found.note)


def _as_path(name: str) -> Path:
    try:
        path = Path(name).expanduser()
        path.is_dir()
    except (OSError, RuntimeError) as error:  # far too long; or no such user, whose home ~name would be
        raise ModelError(
            f"There is no folder {name} ({getattr(error, 'strerror', None) or error})", "Check it"
        ) from error
    return path


def _is_storage(path: Path) -> bool:
    return path.name.startswith(cache.PREFIX) and (path / "snapshots").is_dir() and not (path / "config.json").exists()


def _no_such_model(name: str) -> ModelError:
    """For a name that can be neither a folder here nor a model of the hub."""
    page = _PAGE.fullmatch(name.strip()) or _TAGGED.fullmatch(name.strip())
    if page:
        at = f" --revision {page[2]}" if page[2] else ""
        return ModelError(f"There is no model {name}", f"Name it as {page[1]}{at}")
    if "://" in name:
        return ModelError(f"{name} is an address", "Name a folder, or a model of the hub as owner/name")
    if looks_like_path(name):
        return ModelError(f"There is no folder {name}", "Check the path, or name a model of the hub as owner/name")
    alike = similar(name)
    return ModelError(
        f"There is no model {name}",
        f"Perhaps you mean {alike}"
        if alike
        else f"Name a folder, a model of the hub as owner/name, or one that is bundled: {', '.join(BUNDLED)}",
    )


def _not_here(name: str, revision: str | None) -> ModelError:
    part = cache.broken_off(name, revision)
    alike = "" if part or name in SHORT_NAMES.values() else similar(name)
    at = f" --revision {revision}" if revision else ""
    return ModelError(
        f"{name} is in the cache only in part ({part})"
        if part
        else f"{name} is no folder here and not in the cache (bundled: {', '.join(BUNDLED)})",
        (f"Perhaps you mean {alike}, or download" if alike else "Download") + f" it with: mmcli models pull {name}{at}",
    )


def similar(name: str) -> str:
    """The known model whose name is nearest to a name that is none, "" where none is near."""
    cached = {cache.model_name(place) for place in cache.root().glob(f"{cache.PREFIX}*")}
    known = {*BUNDLED, *cached, *(short for short, full in SHORT_NAMES.items() if full != name)} - {name}
    wanted = name.strip().removeprefix(cache.PREFIX).replace("--", "/").casefold()
    folded = {known_name.casefold(): known_name for known_name in sorted(known)}
    near = get_close_matches(wanted, folded, n=1, cutoff=0.8)
    return folded[near[0]] if near else ""


def hub_name(name: str) -> str:
    """The hub's name of a model that is known by a short one; any other name as it is."""
    return SHORT_NAMES.get(name, name)


def pinned_revision(name: str) -> str | None:
    """The commit that a short name stands for; None for any other name, and where none is known."""
    model = BY_NAME.get(name)
    return model.revision if model else None


def is_local(name: str) -> bool:
    """Whether a name means the bundled model or a path, so that the hub has no say in it."""
    return name in BUNDLED or looks_like_path(name) or Path(name).exists()


def is_repository(name: str) -> bool:
    """Whether a name could be that of a model on the hub: "owner/name", or a short one."""
    return bool(_REPOSITORY.fullmatch(hub_name(name)))


def looks_like_path(name: str) -> bool:
    """Whether a name can only be meant as a path: it starts or is built like one."""
    return name.startswith((".", "/", "~", os.sep)) or name.count("/") > 1 or "\\" in name or name.endswith("/")


def open_folder(name: str, folder: Path, revision: str | None = None, note: str = "") -> Checkpoint:
    """Read config.json of a checkpoint folder. Raises ModelError where it is missing or no JSON object."""
    if not (folder / "config.json").is_file():
        raise not_a_checkpoint(folder, "has no config.json, so it is not a complete model")
    notes = [note] if note else []
    if has_only_pickles(folder):
        notes.append(
            f"the weights of {name} are pickles, of which only tensors are read; "
            f"mmcli models convert {shlex.quote(name)} -o FOLDER makes safetensors of them"
        )
    return Checkpoint(name, folder, revision, read_json(folder / "config.json"), "; ".join(notes))


def cached_folder(name: str, revision: str | None = None) -> Path | None:
    """The snapshot of a hub model in the cache if it is complete, found without any network; else None."""
    found = _cached(hub_name(name), revision, None if revision else pinned_revision(name), is_offline())
    return found.folder if found else None
