"""Models on the hub: what a download would fetch, and the download into huggingface_hub's cache."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from mmcli.errors import ModelError
from mmcli.hub.offline import is_offline
from mmcli.hub.other_formats import PICKLES
from mmcli.hub.resolve import PATTERNS
from mmcli.hub.safetensors_files import INDEX, SINGLE

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


def plan(name: str, revision: str | None = None) -> Plan:
    """Ask the hub which files of a model would be fetched, and how large they are. Raises ModelError."""
    from huggingface_hub import HfApi

    with _hub_errors(name, revision):
        info = HfApi().model_info(name, revision=revision, files_metadata=True)
    names = {file.rfilename: file.size or 0 for file in info.siblings or []}
    files = {file: size for file, size in names.items() if any(fnmatch(file, pattern) for pattern in PATTERNS)}
    if SINGLE in files:  # the same weights in shards would come for nothing
        files = {
            file: size for file, size in files.items() if not fnmatch(file, "model-*.safetensors") and file != INDEX
        }
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
    if is_offline():
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
