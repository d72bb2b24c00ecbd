"""`mmcli report`: a page to look through results."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmcli.cli.arguments import Results
from mmcli.cli.help import Command, plain
from mmcli.cli.options import LogOptions, option, spread
from mmcli.cli.start import begin
from mmcli.errors import ExitCode, InputError, UsageError

if TYPE_CHECKING:
    from mmcli.output.schema import Record

app = plain()
EPILOG = """\
Examples:

  mmcli detect "cat ; dog" photos/ -o results/
  mmcli report results/ -o report.html
  mmcli caption photos/ --json | mmcli report - -o report.html
  mmcli transcribe talks/ --json > talks.jsonl && mmcli report talks.jsonl -o talks.html
  mmcli report --compare a.jsonl b.jsonl -o differences.html

The page is one file that opens in any browser and asks no address for anything. Small copies of the
pictures are in it; recordings are played from where they are."""


@app.command(cls=Command, epilog=EPILOG)
@spread
def command(
    ctx: typer.Context,
    results: Results = None,
    output: Annotated[
        str, option("Output", "--output", "-o", metavar="FILE", help="The page (default report.html).")
    ] = "report.html",
    title: Annotated[str | None, option("Output", "--title", metavar="TEXT", help="What stands at its top.")] = None,
    compare: Annotated[
        bool,
        option("Output", "--compare", help="Of two results of the same inputs show what only one of them has."),
    ] = False,
    *,
    log: LogOptions,
) -> int:
    """Make an HTML page of results: pictures with objects drawn in, transcripts with players, search and filters."""
    environment = begin(ctx, log)
    names = results or []
    if not names:
        raise UsageError("No results were named", "Name files of JSON lines, output folders, or - for standard input")
    if compare and len(names) != 2:
        raise UsageError(f"--compare takes two results, not {len(names)}", "Name two")
    if Path(output).suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--output {output} is no page", "Call it .html")
    from mmcli.batch.results import read_results
    from mmcli.output.drafts import open_draft
    from mmcli.output.files import Destination
    from mmcli.output.ledger import Ledger
    from mmcli.output.report.items import entries
    from mmcli.output.report.page import page

    Destination("--output", output, False, {".html": "", ".htm": ""}, ".html", ledger=Ledger((), names))
    failed = 0

    def records(name: str) -> "Iterator[Record]":
        nonlocal failed
        for one in read_results(name, environment.stdin):
            if isinstance(one, InputError):
                failed += 1
                environment.fail(one)
            else:
                yield one

    roots = [Path(), *(Path(name) if Path(name).is_dir() else Path(name).parent for name in names if name != "-")]
    path, count = Path(output), 0

    def counted(found: "Iterable[dict[str, Any]]") -> Iterator[dict[str, Any]]:
        nonlocal count
        for entry in found:
            count += 1
            yield entry

    if compare:
        found = entries(records(names[0]), path, roots, records(names[1]))
    else:
        found = entries((record for name in names for record in records(name)), path, roots)
    heading = title if title is not None else ", ".join(names)
    with open_draft(path) as draft:
        for part in page(counted(found), heading, tuple(names) if compare else ()):
            draft.write(part.encode())
        if not count and failed:
            return ExitCode.SOME_FAILED
        if not count:
            raise InputError(f"{', '.join(names)} has no results", "Name what a run with --json has written")
        draft.commit()
    environment.note(f"mmcli: {count} result{'s' * (count != 1)} in {output}")
    return ExitCode.SOME_FAILED if failed else ExitCode.OK
