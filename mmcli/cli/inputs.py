"""From the names on a command line to inputs, and whether they count as several."""

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

from mmcli.cli.environment import Environment
from mmcli.errors import InputError, UsageError

if TYPE_CHECKING:
    from mmcli.media.sources import Source


def find_sources(
    environment: Environment,
    names: list[str],
    listed: str | None,
    extensions: frozenset[str],
    what: str,
    outputs: Sequence[str | None] = (),
) -> "tuple[list[Source], bool]":
    """The inputs, each a `what`, as they are when the run begins, and whether they count as several.

    `listed` is the value of --files-from. A folder, a pattern or a list counts as several whatever is in it, so that
    the form of the output does not depend on a folder's content. What lies in one of the `outputs` from an earlier run
    is not found in a folder around it. Raises UsageError where nothing is named.
    """
    from mmcli.media.sources import expand

    if not names and listed is None:
        raise UsageError(f"No {what} was named", "Name files, folders or addresses, or - for standard input")

    sources = list(expand(names, extensions=extensions, files_from=listed, stdin=environment.stdin))
    not_on_stdout(environment, sources, listed)
    sources = without_results(environment, sources, names, what, outputs)
    several = listed is not None or len(names) > 1 or sources[0].name != names[0]
    return sources, several


def found_in(environment: Environment, names: Sequence[str] | None, *, at_once: bool = False) -> "Iterator[Source]":
    """The inputs that results of mmcli tell of, each with what was found in it: see `batch.found.found_sources`.

    Raises UsageError at once where no results are named, and InputError at the end where there were none in them.
    """
    from mmcli.batch.found import found_sources
    from mmcli.batch.results import read_results

    if not names:
        do = "Name files of JSON lines, output folders, or - for standard input"
        raise UsageError("No results were named", do)
    if list(names).count("-") > 1:
        raise UsageError("Standard input (-) can be read only once", "Name it once")
    results = (result for name in names for result in read_results(name, environment.stdin))
    return _or_none(found_sources(results, at_once=at_once), ", ".join(names))


def _or_none(sources: "Iterator[Source]", names: str) -> "Iterator[Source]":
    none = True
    for source in sources:
        none = False
        yield source
    if none:
        raise InputError(f"{names} has no results", "Name what a run with --json has written")


def not_on_stdout(environment: Environment, sources: "Sequence[Source]", listed: str | None = None) -> None:
    """Raise UsageError where results would be written behind what is in one of the inputs (`>>`)."""
    try:
        status = os.fstat(environment.stdout.fileno())
    except (OSError, ValueError):
        return
    if not stat.S_ISREG(status.st_mode) or not status.st_size:  # an empty one has nothing to lose
        return
    names = [str(source.path) for source in sources if source.path is not None]
    for name in [*names, listed] if listed else names:
        with contextlib.suppress(OSError, ValueError):
            if os.path.samestat(os.stat(name), status):
                raise UsageError(f"Standard output leads into {name}, which is read in this run", "Send it elsewhere")


def without_results(
    environment: Environment, sources: "list[Source]", names: list[str], what: str, outputs: Sequence[str | None]
) -> "list[Source]":
    """The sources but those in output folders, except where something in such a folder was named itself."""
    roots = [PurePath(os.path.realpath(name)) for name in names]
    folders = [PurePath(os.path.realpath(output)) for output in outputs if output and os.path.isdir(output)]
    folders = [folder for folder in folders if not any(root.is_relative_to(folder) for root in roots)]
    if not folders:
        return sources

    def is_result(source: "Source") -> bool:
        if source.path is None or source.name in names or source.problem:
            return False
        path = PurePath(os.path.realpath(source.path.parent))
        return any(path.is_relative_to(folder) for folder in folders)

    kept = [source for source in sources if not is_result(source)]
    if kept and len(kept) < len(sources):
        left_out = len(sources) - len(kept)
        some = f"1 {what} is" if left_out == 1 else f"{left_out} {what}s are"
        environment.note(f"mmcli: {some} in a folder for results and not read")
    return kept or sources


def read_beside(*names: str | None) -> list[str]:
    """The files that a run reads beside its inputs, as far as they are here: each of the names, or what is in it."""
    files: list[str] = []
    for name in names:
        if name and os.path.isdir(name):
            files += [path for path in (os.path.join(name, own) for own in os.listdir(name)) if os.path.isfile(path)]
        elif name and os.path.isfile(name):
            files.append(name)
    return files
