"""From the names on a command line to inputs, and whether they count as several."""

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
) -> "tuple[list[Source], bool]":
    """The inputs, each a `what`, as they are when the run begins, and whether they count as several.

    `listed` is the value of --files-from. A folder, a pattern or a list counts as several whatever is in it, so that
    the form of the output does not hang on a folder's content. Raises UsageError where nothing is named.
    """
    from mmcli.media.sources import expand

    if not names and listed is None:
        raise UsageError(f"No {what} was named", "Name files, folders or addresses, or - for standard input")

    sources = list(expand(names, extensions=extensions, files_from=listed, stdin=environment.stdin))
    several = listed is not None or len(names) > 1 or sources[0].name != names[0]
    return sources, several
