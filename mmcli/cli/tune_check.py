"""`mmcli tune check`: a look at data before a model is trained with them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mmcli.cli.data import DataArgument, DataOptions, not_among
from mmcli.cli.environment import Environment
from mmcli.cli.help import Command, plain
from mmcli.cli.options import LogOptions, Offline, Revision, model_option, option, spread
from mmcli.cli.progress import Progress
from mmcli.cli.start import begin
from mmcli.errors import ExitCode, InputError, UsageError
from mmcli.hub.known import IMAGE_MODEL
from mmcli.models.offered import such_as

SHEET = "check.png"
NAMED = 20  # bad rows and labels that are listed
app = plain()
EPILOG = f"""\
Examples:

  mmcli tune check photos/annotations.json
  mmcli tune check yolo/ --split val --output val.png
  mmcli tune check speech.jsonl --model {such_as("transcribes", bundled=True)}
  mmcli tune check chats.jsonl --model {such_as("images", bundled=False)}

No weights are loaded: of the model its tokenizer and settings are enough. Exit code 1 says that some
rows are bad, or cannot be learned by the model."""


@app.command(cls=Command, epilog=EPILOG)
@spread
def command(
    ctx: typer.Context,
    data: DataArgument,
    output: Annotated[
        str, option("Output", "--output", "-o", metavar="FILE.png", help=f"The sheet (default {SHEET}).")
    ] = SHEET,
    samples: Annotated[
        int, option("Output", "--samples", metavar="N", help="Examples on the sheet (default 10; 0: no sheet).")
    ] = 10,
    model: Annotated[
        str,
        model_option(f"The model that is to learn from them (default {IMAGE_MODEL}).", usual=False),
    ] = IMAGE_MODEL,
    revision: Revision = None,
    offline: Offline = False,
    *,
    source: DataOptions,
    log: LogOptions,
) -> int:
    """Look at data before a model is trained with them: counts, what is wrong, and samples on a sheet.

    Everything is read, pictures and recordings too. The boxes and masks on the sheet are drawn from the very tokens
    that will be learned.
    """
    environment = begin(ctx, log, offline)
    if not 0 <= samples <= 100:
        raise typer.BadParameter(f"--samples {samples} is not between 0 and 100.")
    if samples:
        if Path(output).suffix.lower() != ".png":
            raise UsageError(f"--output {output} is no picture", "Call it .png")
        not_among(output, data)
    from mmcli.hub.resolve import resolve
    from mmcli.models.objects_in_text import labels_of
    from mmcli.training.check import Found, counts, labels, remarks, spread
    from mmcli.training.data import Allowance
    from mmcli.training.targets import without_weights

    allowed = Allowance.of(source.max_bad)
    found = Found()
    with Progress(environment, words="reading the data"):
        for row in _rows(data, source):
            found.add(row)
    if not found.examples:
        _list(environment, "bad rows", [str(one) for one in found.bad])
        raise InputError(f"No row of {', '.join(data)} can be used")
    checkpoint = resolve(model, revision, download=not offline)
    loaded = without_weights(checkpoint, frozenset(labels_of(found.examples)))
    with Progress(environment, words="writing them as tokens"):
        learned = list(found.learn(loaded, found.examples))
    environment.write("".join(f"{name}\t{value}\n" for name, value in counts(found)))
    listed = labels(found.examples)
    _list(environment, "labels (objects, pictures)", [f"{name}\t{count:,}\t{seen:,}" for name, count, seen in listed])
    _list(environment, "looks wrong", remarks(found, loaded.processor.capabilities))
    _list(environment, "bad rows", [str(one) for one in found.bad])
    _list(environment, f"of no use to {model}", [str(one) for one in found.unlearnable])
    if not allowed.allows(len(found.bad), len(found.bad) + len(found.examples)):
        environment.note(f"mmcli: more rows are bad than mmcli tune allows ({allowed}): mend them, or raise --max-bad")
    if samples and learned:
        _draw(loaded, spread(learned, samples), output)
        environment.note(f"mmcli: samples are drawn in {output}")
    return ExitCode.SOME_FAILED if found.bad or found.unlearnable else ExitCode.OK


def _rows(data: list[str], source: DataOptions) -> Any:
    """All rows of the data, opened."""
    from mmcli.training.data import read_examples
    from mmcli.training.data.media import opened

    media = None if source.media is None else Path(source.media).expanduser()
    for name in data:
        yield from opened(read_examples(Path(name).expanduser(), format=source.format, media=media, split=source.split))


def _list(environment: Environment, heading: str, lines: list[str]) -> None:
    """A heading with lines below it; of many the first."""
    if lines:
        more = [f"… and {len(lines) - NAMED:,} more"] if len(lines) > NAMED else []
        environment.write(f"\n{heading}:\n" + "".join(f"  {_line(line)}\n" for line in [*lines[:NAMED], *more]))


def _line(text: str) -> str:
    from mmcli.escape import escape_line

    return "\t".join(map(escape_line, text.split("\t")))


def _draw(loaded: Any, examples: Any, output: str) -> None:
    import io

    from mmcli.output.drafts import atomic_write
    from mmcli.training.sheet import sheet

    data = io.BytesIO()
    sheet(loaded, examples).save(data, "PNG")
    atomic_write(Path(output), data.getvalue())
