"""`mmcli caption`."""

from typing import Annotated, Literal

import typer

from mmcli.cli.arguments import Beams, Images
from mmcli.cli.engine import EngineOptions
from mmcli.cli.folders import FolderOptions
from mmcli.cli.help import Command, plain
from mmcli.cli.options import AnswerOptions, ImageOptions, LogOptions, ModelOptions, OutputOptions, option, spread

app = plain()
EPILOG = """\
Examples:

  mmcli caption photo.jpg
  mmcli caption photos/ https://example.org/cat.jpg '*.png'
  find . -name '*.jpg' -print0 | mmcli caption --files-from - --json > captions.jsonl
  curl -s https://example.org/cat.jpg | mmcli caption -
  mmcli caption photo.jpg --detail high
  mmcli caption film.mp4 --every 10s --format srt -o film.srt
  mmcli caption photo.jpg --prompt "describe en" --max-tokens 60"""


Detail = Annotated[
    Literal["low", "medium", "high"] | None,
    option(
        "Answer",
        "--detail",
        metavar="LEVEL",
        help="How much it tells: low, medium or high (default: the model's usual caption).",
    ),
]


@app.command(cls=Command, epilog=EPILOG)
@spread
def command(
    ctx: typer.Context,
    images: Images = None,
    *,
    inputs: ImageOptions,
    answer: AnswerOptions,
    detail: Detail = None,
    beams: Beams = None,
    output: OutputOptions,
    folder: FolderOptions,
    model: ModelOptions,
    engine: EngineOptions,
    log: LogOptions,
) -> int:
    """Describe each picture in a sentence or, with some models, in detail.

    One picture: its caption on a line. Several: the name and the caption, one line a picture.
    """
    from mmcli.cli.images import Plan, request_fields, run_images
    from mmcli.tasks.caption import CaptionRequest

    request = CaptionRequest(**request_fields(answer, output), beams=beams, detail=detail)
    return run_images(ctx, request, Plan(images or [], inputs, output, model, log, folder=folder, engine=engine))
