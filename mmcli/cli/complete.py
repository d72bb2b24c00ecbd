"""What the shell offers for Tab: the values of options, and the models on this machine."""

import re
from collections.abc import Callable

# Some shells evaluate what is offered to them; a folder in the cache may be called anything.
_HARMLESS = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


def values(metavar: str | None) -> Callable[[str], list[str]] | None:
    """A completion for an option whose help names its values, such as "auto|cpu|cuda"; None for any other."""
    if metavar is None or not re.fullmatch(r"[a-z0-9]+(\|[a-z0-9]+)+", metavar):
        return None
    allowed = metavar.split("|")
    return lambda incomplete: [value for value in allowed if value.startswith(incomplete)]


def models(incomplete: str) -> list[str]:
    """Models that are bundled, in the cache, or known by a short name; no paths, which the shell knows better."""
    from mmcli.hub import cache
    from mmcli.models.offered import able

    places = sorted(cache.root().glob(f"{cache.PREFIX}*"))
    cached = [
        name
        for place in places
        if _HARMLESS.fullmatch(name := cache.model_name(place))
        and any((folder / "config.json").is_file() for folder in cache.snapshots(place))
    ]
    names = (*able(bundled=True), *cached, *able(bundled=False))
    return [name for name in names if name.startswith(incomplete)]
