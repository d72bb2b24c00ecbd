"""Models on the hub and in huggingface_hub's cache: download, list, remove, verify."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from mmcli.errors import ModelError
from mmcli.hub.resolve import PATTERNS
from mmcli.hub.safetensors_files import PICKLES, read_header, read_index

LOG_IN = "then log in with `hf auth login` or set HF_TOKEN"


@dataclass(frozen=True)
class Plan:
    """What a download would fetch."""

    name: str
    revision: str  # the commit that the branch, tag or commit asked for stands for
    files: dict[str, int]  # name → bytes

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(self.files.values())


@dataclass(frozen=True)
class CachedModel:
    """One revision of a model in the cache."""

    name: str
    revision: str
    references: tuple[str, ...]  # branches and tags that point to it
    folder: Path
    size: int  # bytes on disk, of which other revisions may share some
    last_used: float  # seconds since 1970


@dataclass(frozen=True)
class Finding:
    """What `verify` found about one file; `problem` is empty for a sound one."""

    file: Path
    problem: str = ""
    checked: str = ""  # how its content was checked: "sha256", "git-sha1" or "" where no checksum is known


def plan(name: str, revision: str | None = None) -> Plan:
    """Ask the hub which files of a model would be fetched, and how large they are. Raises ModelError."""
    from huggingface_hub import HfApi

    with _hub_errors(name, revision):
        info = HfApi().model_info(name, revision=revision, files_metadata=True)
    names = {file.rfilename: file.size or 0 for file in info.siblings or []}
    files = {file: size for file, size in names.items() if any(fnmatch(file, pattern) for pattern in PATTERNS)}
    if not any(file.endswith(".safetensors") for file in files):
        if any(fnmatch(file, pattern) for file in names for pattern in PICKLES):
            raise ModelError(
                f"{name} offers its weights only as a pickle, which can run code when it is opened",
                "Look for a revision or a conversion with model.safetensors",
            )
        raise ModelError(f"{name} offers no safetensors weights", f"See https://huggingface.co/{name}/tree/main")
    return Plan(name, info.sha, files)


def fetch(name: str, revision: str | None = None, *, weights: bool = True) -> Path:
    """Download what is missing of a model into the cache → its folder; broken-off downloads go on where they stopped.

    Without `weights` only the small files come, enough to look at a model.

    Raises ModelError: gated, missing, offline, or no room on the disk.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE

    todo = plan(name, revision)
    files = {file: size for file, size in todo.files.items() if weights or not file.endswith(".safetensors")}
    missing = sum(size for file, size in files.items() if not _is_cached(name, file, todo.revision))
    place = next(path for path in (Path(HF_HUB_CACHE), *Path(HF_HUB_CACHE).parents) if path.exists())
    free = shutil.disk_usage(place).free
    if missing > free:
        raise ModelError(
            f"{name} needs {missing / 1e9:.1f} GB more, but {place} has only {free / 1e9:.1f} GB free",
            "Free some space, or set HF_HOME to a folder on a larger disk",
        )
    with _hub_errors(name, revision):
        # With the branch's own name a reference is kept, by which the model is found without network later.
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(files)))


def _is_cached(name: str, file: str, revision: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, file, revision=revision), str)


def cached_models() -> list[CachedModel]:
    """Every model in the cache that has a config.json, by name, newest first."""
    models = [
        CachedModel(
            repo.repo_id,
            revision.commit_hash,
            tuple(sorted(revision.refs)),
            revision.snapshot_path,
            revision.size_on_disk,
            repo.last_accessed,
        )
        for repo in _scan_cache()
        if repo.repo_type == "model"
        for revision in sorted(repo.revisions, key=lambda revision: revision.last_modified, reverse=True)
        if any(file.file_name == "config.json" for file in revision.files)
    ]
    return sorted(models, key=lambda model: model.name)


def remove(name: str, revision: str | None = None) -> int:
    """Delete a model, or one revision of it, from the cache → bytes freed. Raises ModelError where it is not there."""
    from huggingface_hub import scan_cache_dir

    doomed = [model.revision for model in _cached(name, revision)]
    strategy = scan_cache_dir().delete_revisions(*doomed)
    strategy.execute()
    return strategy.expected_freed_size


def verify(name: str, revision: str | None = None) -> list[Finding]:
    """Check every file of a cached model, without network: checksums, safetensors headers, missing shards.

    The cache names a file's content by its checksum (SHA-256 for large files, git's SHA-1 for small ones); where the
    file system has no links, that name is lost and only the structure is checked. Raises ModelError where the model is
    not in the cache.
    """
    return [finding for model in _cached(name, revision) for finding in verify_folder(model.folder)]


def verify_folder(folder: Path) -> list[Finding]:
    """`verify` for one folder; also for folders outside the cache, whose files have no checksums."""
    findings = [_verify_file(file) for file in sorted(folder.rglob("*")) if file.is_file() or file.is_symlink()]
    for index in sorted(folder.glob("*.safetensors.index.json")):
        try:
            absent = {shard for shard in read_index(index).values() if not (folder / shard).exists()}
        except ModelError as error:
            findings.append(Finding(index, error.what))
        else:
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
    if file.suffix == ".safetensors":
        try:
            read_header(file)
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


def _scan_cache() -> list:
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        return list(scan_cache_dir().repos)
    except CacheNotFound:
        return []


def _cached(name: str, revision: str | None) -> list[CachedModel]:
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


@contextmanager
def _hub_errors(name: str, revision: str | None) -> Iterator[None]:
    """Turn what huggingface_hub and the network raise into ModelErrors that say what to do."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    page = f"https://huggingface.co/{name}"
    try:
        yield
    except GatedRepoError as error:  # a RepositoryNotFoundError too, so it comes first
        raise ModelError(f"{name} asks you to accept its licence first", f"Accept it at {page}, {LOG_IN}") from error
    except RevisionNotFoundError as error:
        raise ModelError(f"{name} has no revision {revision}", f"See {page}/tree/main") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ModelError(
            f"{name} is no folder here, and the hub shows no such model (nor gated and private ones without a login)",
            f"Check the name; if the model is gated, accept its licence at {page}, {LOG_IN}",
        ) from error
    except (OfflineModeIsEnabled, LocalEntryNotFoundError) as error:
        raise _unreachable(name, error) from error
    except HfHubHTTPError as error:
        raise ModelError(f"The hub refused {name} ({_first_line(error)})", "Try again later") from error
    except OSError as error:
        if error.errno is not None and not isinstance(error, ConnectionError):  # the disk, not the network
            raise ModelError(f"{name} cannot be saved ({error})") from error
        raise _unreachable(name, error) from error
    except Exception as error:
        # The HTTP library below huggingface_hub differs by version; its transport errors share no base that both have.
        if not type(error).__module__.startswith(("httpx", "httpcore", "requests", "urllib3")):
            raise
        raise _unreachable(name, error) from error


def _unreachable(name: str, error: Exception) -> ModelError:
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return ModelError(
            f"{name} is no folder here and not in the cache, and HF_HUB_OFFLINE forbids to download it",
            "Unset HF_HUB_OFFLINE, or name a folder or a model that is here (nano is bundled)",
        )
    return ModelError(
        f"{name} is no folder here and not in the cache, and the hub cannot be reached ({_first_line(error)})",
        "Connect to the network, or name a folder or a model that is here (nano is bundled)",
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
