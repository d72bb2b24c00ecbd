"""What this machine has of known models, and whether it could get more."""

from dataclasses import dataclass

from mmcli.hub import cache
from mmcli.hub.known_models import KNOWN
from mmcli.hub.resolve import cached_folder
from mmcli.offline import is_offline

ANSWER = 2.0  # seconds that the hub may take to be reached


@dataclass(frozen=True)
class Here:
    """Known models on this machine by their short names, and what a download would meet."""

    models: frozenset[str]
    online: bool  # whether more can be downloaded
    offline_why: str = ""  # else why not, in words
    free: int | None = None  # bytes on the cache's disk
    place: str = ""  # the cache's folder


def models_here(*, ask: bool = False) -> Here:
    """What is here. With `ask` the hub is asked whether it can be reached; else that is taken for granted."""
    names = frozenset(model.name for model in KNOWN if model.bundled or cached_folder(model.name))
    why = "the network is forbidden (--offline or HF_HUB_OFFLINE)" if is_offline() else ""
    if not why and ask and not reachable():
        why = "the hub cannot be reached"
    return Here(names, not why, why, cache.free_bytes(), str(cache.root()))


def reachable() -> bool:
    """Whether the hub answers at all."""
    import urllib.error
    import urllib.request

    from huggingface_hub.constants import ENDPOINT

    try:
        urllib.request.urlopen(urllib.request.Request(ENDPOINT, method="HEAD"), timeout=ANSWER).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
    return True
