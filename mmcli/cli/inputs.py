"""From the names on a command line to inputs, and whether they count as several."""

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

from mmcli.cli.environment import Environment
from mmcli.errors import UsageError

if TYPE_CHECKING:
    from mmcli.media.sources import Source


def find_sources(
    environment: Environment,
    names: list[str],
    listed: str | None,
    extensions: frozenset[str],
    what: str,
    *,
    counted: bool = True,
) -> "tuple[Iterator[Source], bool, int | None]":
    """The inputs, each a `what`, whether they count as several, and where it matters how many there are.

    `listed` is the value of --files-from. A folder, a pattern or a list counts as several whatever is in it, so that
    the form of the output does not hang on a folder's content. The names are counted only for a progress bar that
    someone sees, and not without `counted`. Raises UsageError where nothing is named.
    """
    from mmcli.media.sources import expand

    if not names and listed is None:
        raise UsageError(f"No {what} was named", "Name files, folders or addresses, or - for standard input")

    def expanded() -> "Iterator[Source]":
        return expand(names, extensions=extensions, files_from=listed, stdin=environment.stdin)

    sources = expanded()
    if listed is not None or len(names) > 1:
        several = True
    else:
        first = next(sources)
        several = first.name != names[0]
        sources = chain([first], sources)
    total = None
    if counted and several and environment.stderr_tty and not environment.quiet and "-" not in (listed, *names):
        total = sum(1 for _ in expanded())
    return sources, several, total
