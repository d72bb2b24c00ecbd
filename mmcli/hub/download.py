"""Models on the hub: what a download would fetch, and the download into huggingface_hub's cache."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from mmcli.errors import ExitCode, ModelError, first_line, keeping_interrupts
from mmcli.hub import pickle_files
from mmcli.hub.cache import broken_off, free_bytes
from mmcli.hub.layout import BUNDLED, PATTERNS
from mmcli.hub.other_formats import PICKLES
from mmcli.hub.safetensors_files import INDEX, SINGLE
from mmcli.offline import is_offline

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

ROOM = "Free some space, or set HF_HOME to a folder on a larger disk"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LOG_IN = "then log in with `hf auth login` or set HF_TOKEN"

ANSWER = 8.0  # seconds that the hub may take to begin to answer; without a number it may take for ever


class DiskError(ModelError):
    """This machine cannot keep what is to be downloaded."""

    exit_code = ExitCode.MACHINE


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

    @property
    def weights(self) -> int:
        """Bytes of the weight files."""
        return sum(size for file, size in self.files.items() if _is_weights(file))


def plan(name: str, revision: str | None = None) -> Plan:
    """Ask the hub which files of a model would be fetched, and how large they are. Raises ModelError."""
    from huggingface_hub import HfApi

    with _hub_errors(name, revision):
        info = HfApi().model_info(name, revision=revision, files_metadata=True, timeout=ANSWER)
    names = {file.rfilename: file.size or 0 for file in info.siblings or []}
    files = {file: size for file, size in names.items() if any(fnmatch(file, pattern) for pattern in PATTERNS)}
    if SINGLE in files:  # the same weights in shards would come for nothing
        files = {
            file: size for file, size in files.items() if not fnmatch(file, "model-*.safetensors") and file != INDEX
        }
    if not any(map(_is_weights, files)):
        whole = {file: size for file, size in names.items() if file == pickle_files.SINGLE}
        files |= whole or {file: size for file, size in names.items() if fnmatch(file, pickle_files.SHARDS)}
    if not any(map(_is_weights, files)):
        if any(fnmatch(file, pattern) for file in names for pattern in PICKLES):
            raise ModelError(
                f"{name} offers its weights only in a form that mmcli does not read",
                f"Look for a revision or a conversion with {SINGLE}",
            )
        raise ModelError(f"{name} offers no safetensors weights", f"See https://huggingface.co/{name}/tree/main")
    assert info.sha is not None  # the hub always tells it of one repository
    return Plan(name, info.sha, files)


def _is_weights(file: str) -> bool:
    return file.endswith((".safetensors", ".bin"))


def fetch(name: str, revision: str | None = None, *, weights: bool = True) -> Path:
    """Download what is missing of a model into the cache → its folder; broken-off downloads go on where they stopped.

    Without `weights` only the small files come, enough to look at a model.

    Raises ModelError: gated, missing, offline, or no room on the disk.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE

    todo = plan(name, revision)
    files = {file: size for file, size in todo.files.items() if weights or not _is_weights(file)}
    missing = sum(size for file, size in files.items() if not _is_cached(name, file, todo.revision))
    free = free_bytes()
    if free is not None and missing > free:
        raise DiskError(
            f"{name} needs {missing / 1e9:.1f} GB more, but {HF_HUB_CACHE} has only {free / 1e9:.1f} GB free", ROOM
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
        with keeping_interrupts():
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
        raise _refused(name, error) from error
    except OSError as error:
        if error.errno is not None and not isinstance(error, ConnectionError):  # the disk, not the network
            do = ROOM if error.errno in FULL else "Set HF_HOME to a folder in which you may write"
            raise DiskError(f"{name} cannot be saved ({error})", do) from error
        raise _unreachable(name, error) from error
    except (ValueError, ImportError) as error:  # a proxy or a token that the HTTP library cannot use
        what = f"The hub cannot be asked for {name} ({first_line(error)})"
        raise ModelError(what, "Check HF_TOKEN, HF_ENDPOINT and the proxy in HTTPS_PROXY or ALL_PROXY") from error
    except Exception as error:
        # The HTTP library below huggingface_hub differs by version; its transport errors share no base that both have.
        if not type(error).__module__.startswith(("httpx", "httpcore", "requests", "urllib3")):
            raise
        raise _unreachable(name, error) from error


def _refused(name: str, error: "HfHubHTTPError") -> ModelError:
    """What the hub's status means: mostly something about the login."""
    status = error.response.status_code if error.response is not None else 0
    do = {
        401: "Log in again with `hf auth login`, or correct or unset HF_TOKEN: the hub does not know that token",
        403: f"Ask for access at https://huggingface.co/{name}, and use a token that may read gated models",
        429: "The hub has had too many requests: try again later, or log in with `hf auth login`",
    }.get(status, "Try again later")
    return ModelError(f"The hub refused {name} ({first_line(error)})", do)


def _unreachable(name: str, error: Exception) -> ModelError:
    part = broken_off(name)
    here = f"{name} is in the cache only in part" if part else f"{name} is no folder here and not in the cache"
    if is_offline():
        return ModelError(
            f"{here}, and HF_HUB_OFFLINE forbids to download it",
            f"Unset HF_HUB_OFFLINE, or name a folder or a model that is here (bundled: {', '.join(BUNDLED)})",
        )
    return ModelError(
        f"{here}, and the hub cannot be reached ({first_line(error)})",
        "Connect to the network and run again: the download goes on where it stopped"
        if part
        else f"Connect to the network, or name a folder or a model that is here (bundled: {', '.join(BUNDLED)})",
    )
