"""huggingface_hub's cache as it lies on the disk: which revisions of which models are here, and what they lack.

    models--OWNER--NAME/refs/main           the commit that a branch or tag stood for when the hub was last asked
    models--OWNER--NAME/snapshots/COMMIT/   a folder of links to contents
    models--OWNER--NAME/blobs/CHECKSUM      the contents; CHECKSUM….incomplete: a download that broke off

The library itself writes it. It is read here, because the library gives a model up for a reference that ends in a line
break, that was not copied along, or that names a revision whose download broke off.
"""

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmcli.errors import ModelError
from mmcli.hub.files import below
from mmcli.hub.other_formats import not_a_checkpoint
from mmcli.hub.weight_files import weight_files

PREFIX = "models--"
TOKENIZERS = ("tokenizer.json", "vocab.json")
_SHORTEST = 7  # characters by which a commit may be named


@dataclass(frozen=True)
class CachedModel:
    """One revision of a model in the cache."""

    name: str
    revision: str
    references: tuple[str, ...]  # branches and tags that point to it
    folder: Path
    size: int  # bytes on disk, of which other revisions may share some


@dataclass(frozen=True)
class Found:
    """A complete revision; `note` says why this one, where the cache does not tell."""

    folder: Path
    note: str = ""


def root() -> Path:
    """The cache's folder, by HF_HUB_CACHE or HF_HOME; it need not exist."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


def free_bytes() -> int | None:
    """Bytes free on the disk where the cache is or would be made; None where that is not known."""
    try:
        return shutil.disk_usage(next(path for path in (root(), *root().parents) if path.exists())).free
    except (OSError, StopIteration):
        return None


def storage(name: str) -> Path:
    """Where the cache keeps the hub model `name`."""
    return root() / (PREFIX + name.replace("/", "--"))


def model_name(place: Path) -> str:
    """The hub's name of the model that `place`, a folder of the cache, keeps."""
    return place.name.removeprefix(PREFIX).replace("--", "/")


def find(place: Path, revision: str | None = None, *, any_revision: bool = False, weights: bool = True) -> Found | None:
    """The complete snapshot in `place` that `revision` means: a branch, a tag, a commit or its beginning.

    None means main. Where the cache does not know main, or with `any_revision` where main is not complete, the newest
    complete snapshot is taken. Without `weights`, a snapshot with a config.json is as good as complete.
    """
    whole = [f for f in snapshots(place) if not (lacking(f) if weights else not (f / "config.json").is_file())]
    known = references(place)
    wanted = known.get(revision or "main", revision)
    for folder in whole:
        if folder.name == wanted:
            return Found(folder)
    if revision is not None:
        begun = [folder for folder in whole if len(revision) >= _SHORTEST and folder.name.startswith(revision)]
        return Found(begun[0]) if len(begun) == 1 else None
    if not whole or ("main" in known and not any_revision):
        return None
    if "main" in known:
        reason = f"the newest revision of {model_name(place)} is not complete in the cache"
    elif len(whole) > 1:
        reason = f"the cache holds {len(whole)} revisions of {model_name(place)} and does not say which is main"
    else:
        return Found(whole[0])
    return Found(whole[0], f"{reason}: {whole[0].name[:12]} is used (--revision chooses another)")


def snapshots(place: Path) -> list[Path]:
    """The snapshots in `place`, newest first."""
    with contextlib.suppress(OSError):
        folders = [folder for folder in (place / "snapshots").iterdir() if folder.is_dir()]
        return sorted(folders, key=lambda folder: (folder.stat().st_mtime, folder.name), reverse=True)
    return []


def references(place: Path) -> dict[str, str]:
    """Branch or tag → commit, for all that `place` knows; white space around a commit does not belong to it."""
    return {reference.relative_to(place / "refs").as_posix(): commit for reference, commit in _reference_files(place)}


def _reference_files(place: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted(below(place / "refs")):
        with contextlib.suppress(OSError, ValueError):
            if path.is_file():
                yield path, path.read_bytes()[:256].decode("utf-8-sig").strip("\0 \t\r\n")


def lacking(folder: Path) -> str:
    """What a snapshot lacks to be run, in words; "" where it is complete. Other tools fetch parts of a model."""
    try:
        if not (folder / "config.json").is_file():
            raise not_a_checkpoint(folder, "has no config.json")
        weight_files(folder)
    except ModelError as error:
        return error.what
    return "" if any((folder / name).is_file() for name in TOKENIZERS) else "its tokenizer is missing"


def broken_off(name: str, revision: str | None = None) -> str:
    """What the cache lacks of a model of which it has a part, in words; "" where it has nothing of it."""
    place = storage(name)
    wanted = references(place).get(revision or "main", revision)
    partial = [folder for folder in snapshots(place) if wanted is None or folder.name == wanted]
    if partial:
        return lacking(partial[0])
    unfinished = any((place / "blobs").glob("*.incomplete")) if (place / "blobs").is_dir() else False
    return "its download broke off" if unfinished else ""


def cached_models() -> list[CachedModel]:
    """Every model in the cache that has a config.json, by name, newest first."""
    places = sorted(place for place in root().glob(f"{PREFIX}*") if place.is_dir())
    return [
        CachedModel(
            model_name(place),
            folder.name,
            tuple(sorted(name for name, commit in references(place).items() if commit == folder.name)),
            folder,
            sum(path.stat().st_size for path in _contents(folder)),
        )
        for place in places
        for folder in snapshots(place)
        if (folder / "config.json").is_file()
    ]


def _contents(folder: Path) -> set[Path]:
    """The files that a snapshot's links lead to; links to nothing are passed over."""
    return {path.resolve() for path in below(folder) if path.is_file()}


def cached(name: str, revision: str | None) -> list[CachedModel]:
    """The revisions of `name` in the cache, or the one that is asked for. Raises ModelError where there is none."""
    found = [
        model
        for model in cached_models()
        if model.name == name
        and (revision is None or revision in model.references or model.revision.startswith(revision))
    ]
    if not found:
        at = f" at revision {revision}" if revision else ""
        raise ModelError(f"{name}{at} is not in the cache", "See what is there with: mmcli models list")
    return found


def disk_size(name: str) -> int:
    """Bytes that everything of the model `name` takes in the cache, what broke off included."""
    files = below(storage(name))
    return sum(path.lstat().st_size for path in files if path.is_file() and not path.is_symlink())


def remove(name: str, revision: str | None = None) -> int:
    """Delete a model, or one revision of it, from the cache → bytes freed. Raises ModelError.

    What other revisions share stays; without `revision`, what broken-off downloads left goes too.
    """
    place = storage(name)
    if revision is None and place.is_dir():
        doomed = snapshots(place)
    else:
        doomed = [model.folder for model in cached(name, revision)]
    before = disk_size(name)
    try:
        if set(doomed) == set(snapshots(place)):
            shutil.rmtree(place)
        else:
            _remove_snapshots(place, doomed)
    except (OSError, RecursionError) as error:  # the latter: folders a thousand deep
        raise ModelError(f"{name} cannot be removed ({error})", f"Check {place}, or delete it yourself") from error
    return before - disk_size(name)


def _remove_snapshots(place: Path, doomed: list[Path]) -> None:
    shared = {content for folder in snapshots(place) if folder not in doomed for content in _contents(folder)}
    alone = {content for folder in doomed for content in _contents(folder)} - shared
    for path, commit in list(_reference_files(place)):
        if commit in {folder.name for folder in doomed}:
            path.unlink()
    for folder in doomed:
        shutil.rmtree(folder)
    for path in alone:
        if path.parent == (place / "blobs").resolve():  # a link may lead anywhere
            path.unlink(missing_ok=True)
