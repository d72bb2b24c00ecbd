"""`mmcli read`."""

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated

import typer

from mmcli.cli.arguments import Beams, Images
from mmcli.cli.engine import EngineOptions
from mmcli.cli.folders import FolderOptions
from mmcli.cli.help import Command, plain
from mmcli.cli.options import (
    AnswerOptions,
    ImageOptions,
    LogOptions,
    ModelOptions,
    OutputOptions,
    model_option,
    option,
    spread,
)
from mmcli.errors import UsageError
from mmcli.hub.known import IMAGE_MODEL
from mmcli.models.offered import any_of, such_as

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mmcli.batch.outcome import Outcome
    from mmcli.media.sources import Source
    from mmcli.tasks.read import ReadRequest

app = plain()
EPILOG = f"""\
Examples:

  mmcli read sign.jpg
  mmcli read scans/ --output text/
  mmcli read receipt.png --boxes --overlay receipt-boxes.png
  mmcli read page.jpg --boxes --json | jq '.objects[].label'
  mmcli read sign.jpg --model {such_as("reads_text", bundled=False)}

Without a model the library RapidOCR reads Latin and Chinese letters, offline: pip install 'mmcli[read]'.
Its score is the logarithm of the mean probability of a line's letters, 0 at best."""


@dataclass(frozen=True)
class ReadModelOptions(ModelOptions):
    """Which model reads; the rest as for every other command."""

    model: Annotated[
        str,
        model_option(
            f"A model that reads: {any_of('reads_text')}, a checkpoint's folder or another of the Hugging Face "
            "hub (default: the library of mmcli[read], unless mmcli models use has set a model).",
        ),
    ] = ""


@app.command(cls=Command, epilog=EPILOG)
@spread
def command(
    ctx: typer.Context,
    images: Images = None,
    boxes: Annotated[
        bool, option("Answer", "--boxes", help="Print each piece of text with its box; --overlay does it too.")
    ] = False,
    beams: Beams = None,
    *,
    inputs: ImageOptions,
    answer: AnswerOptions,
    output: OutputOptions,
    folder: FolderOptions,
    model: ReadModelOptions,
    engine: EngineOptions,
    log: LogOptions,
) -> int:
    """Read the text in pictures.

    One picture: its text. Several: the name and the text, one line a picture. With --boxes one line a piece of text,
    separated by tabs: the text, x0, y0, x1, y1, score; with several pictures the name comes first.
    """
    from mmcli.cli.images import Plan, request_fields, run_images
    from mmcli.tasks.read import ReadRequest

    request = ReadRequest(boxes=boxes or output.overlay is not None, beams=beams, **request_fields(answer, output))
    plan = Plan(images or [], inputs, output, model, log, folder=folder, engine=engine)
    if model.model:
        return run_images(ctx, request, plan)
    only_with_a_model(answer, output, model, inputs, engine, beams)
    from importlib.metadata import version

    from mmcli.batch.read import run
    from mmcli.tasks.reader import Reader
    from mmcli.tasks.reading_library import LIBRARY, require_installed

    require_installed(IMAGE_MODEL)
    plan = replace(plan, library=f"{LIBRARY} {version(LIBRARY)}")

    def answers(request: "ReadRequest", sources: "Iterable[Source]") -> "Iterator[Outcome]":
        return run(sources, request, Reader())

    return run_images(ctx, request, plan, answers)


def only_with_a_model(
    answer: AnswerOptions,
    output: OutputOptions,
    model: ModelOptions,
    inputs: ImageOptions,
    engine: EngineOptions,
    beams: int | None = None,
) -> None:
    """Raise UsageError for an option that would have no effect on what the library reads."""
    given = [] if beams is None else ["--beams"]
    for group, names in (
        (answer, [field.name for field in fields(answer)]),
        (output, ["token_ids", "loc_divisor"]),
        (inputs, ["interval", "frames"]),
        (model, ["revision", "device", "dtype", "table", "quantize", "adapter"]),
        (engine, [field.name for field in fields(engine)]),
    ):
        defaults = {field.name: field.default for field in fields(group)}  # type: ignore[arg-type]
        changed = [name for name in names if getattr(group, name) != defaults[name]]
        given += ["--every" if name == "interval" else "--" + name.replace("_", "-") for name in changed]
    for flag in given:
        do = f"Name one with --model, such as {such_as('reads_text', bundled=False)}, or leave {flag} out"
        raise UsageError(f"{flag} is for models, and none is named", do)
