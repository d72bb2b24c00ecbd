"""`mmcli detect`."""

from typing import Annotated

import typer

from mmcli.cli.arguments import Beams, Images, LabelsOrAll, MinScore
from mmcli.cli.engine import EngineOptions
from mmcli.cli.folders import FolderOptions, ObjectOptions
from mmcli.cli.help import Command, plain
from mmcli.cli.options import AnswerOptions, ImageOptions, LogOptions, ModelOptions, OutputOptions, option, spread
from mmcli.models.offered import such_as

app = plain()
EPILOG = f"""\
Examples:

  mmcli detect "cat" photo.jpg
  mmcli detect "cat ; dog" photos/ --overlay boxes/
  mmcli detect "traffic light" photo.jpg --json | jq '.objects[].box'
  mmcli detect "cat" photo.jpg --overlay cat.png --show
  mmcli detect "bottle" photos/ --min-score 0.5
  mmcli detect "cat" film.mp4 --every 0.5s --overlay found.mp4
  mmcli detect --all photo.jpg --model {such_as("finds_all")}

Coordinates are pixels of the picture as it is displayed (turned by its EXIF tag), from its upper
left corner: x0 y0 x1 y1. {such_as("probabilities")}'s score is the probability that the object is right, from 0 to 1.
Other models give none: theirs is the mean log-probability of the object's tokens, 0 or below, which
is no probability of being right. --json has both, as probability and score."""


@app.command(cls=Command, epilog=EPILOG)
@spread
def command(
    ctx: typer.Context,
    labels: LabelsOrAll = None,
    images: Images = None,
    every: Annotated[
        bool,
        option(
            "Answer", "--all", help=f"Find whatever there is, with models that can, such as {such_as('finds_all')}."
        ),
    ] = False,
    min_score: MinScore = None,
    beams: Beams = None,
    *,
    inputs: ImageOptions,
    answer: AnswerOptions,
    output: OutputOptions,
    folder: FolderOptions,
    objects: ObjectOptions,
    model: ModelOptions,
    engine: EngineOptions,
    log: LogOptions,
) -> int:
    """Find objects in pictures and print a box for each.

    One line an object, separated by tabs: label, x0, y0, x1, y1, score; with several pictures the name comes first.
    Nothing found prints nothing.
    """
    from mmcli.cli.images import Plan, request_fields, run_images, sifting
    from mmcli.tasks.detect import DetectRequest

    images = images or []
    if every and labels is not None:
        images = [labels, *images]
    words = "" if every or labels is None else labels
    fields = request_fields(answer, output) | sifting(objects)
    request = DetectRequest(words=words, every=every, min_score=min_score, beams=beams, **fields)
    plan = Plan(images, inputs, output, model, log, folder=folder, objects=objects, engine=engine)
    return run_images(ctx, request, plan)
