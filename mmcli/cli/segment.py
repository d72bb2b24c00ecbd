"""`mmcli segment`."""

from typing import Annotated

import typer

from mmcli.cli.arguments import Beams, Images, LabelsOrResults, MinScore
from mmcli.cli.engine import EngineOptions
from mmcli.cli.folders import FolderOptions, ObjectOptions
from mmcli.cli.help import Command, plain
from mmcli.cli.options import AnswerOptions, ImageOptions, LogOptions, ModelOptions, OutputOptions, option, spread
from mmcli.errors import UsageError
from mmcli.hub.known import IMAGE_MODEL
from mmcli.models.offered import such_as

app = plain()
EPILOG = f"""\
Examples:

  mmcli segment "cat" photo.jpg --mask cat.png
  mmcli segment "cat ; dog" photos/ --mask masks/ --overlay overlays/
  mmcli segment "cat" photo.jpg --json | jq '.objects[].mask'
  mmcli detect "cat" photos/ --json | mmcli segment - --from-boxes --overlay overlays/

A mask in a record is COCO run-length encoding of the whole picture as it is displayed; pycocotools
reads it. The bundled {IMAGE_MODEL} brings the decoder of its mask tokens. For models that do not, such as
{such_as("masks", bundled=False)}, the published one is fetched at first use, an 8 MB file;
--mask-decoder names a copy of it.

--from-boxes outlines what was found before, by whatever model: each record keeps its boxes, labels and
scores and gets masks. What the model does not know stays without one."""


@app.command(cls=Command, epilog=EPILOG)
@spread
def command(
    ctx: typer.Context,
    labels: LabelsOrResults = None,
    images: Images = None,
    mask: Annotated[
        str | None,
        option(
            "Output",
            "--mask",
            metavar="PATH|FOLDER",
            help="Write the masks of a picture as one black and white PNG; a folder mirrors the pictures' tree.",
        ),
    ] = None,
    mask_decoder: Annotated[
        str | None,
        option(
            "Model",
            "--mask-decoder",
            metavar="PATH",
            help="The decoder of mask tokens, .npz or .safetensors (default: the model's own).",
        ),
    ] = None,
    min_score: MinScore = None,
    beams: Beams = None,
    from_boxes: Annotated[
        bool,
        option(
            "Answer",
            "--from-boxes",
            help="Outline the objects in results of mmcli: files of JSON lines, output folders, or - for stdin, in the "
            "place of pictures.",
        ),
    ] = False,
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
    """Find objects in pictures and outline each with a mask.

    One line an object, separated by tabs: label, x0, y0, x1, y1, score; with several pictures the name comes first.
    The masks themselves go to --mask, --overlay or --json.
    """
    from mmcli.cli.images import Plan, request_fields, run_images, sifting
    from mmcli.tasks.segment import SegmentRequest

    images = images or []
    if from_boxes:
        images = [labels, *images] if labels is not None else images
        only_with_names(answer, inputs, min_score, beams)
    words = "" if from_boxes or labels is None else labels
    fields = request_fields(answer, output) | sifting(objects)
    request = SegmentRequest(words=words, from_boxes=from_boxes, min_score=min_score, beams=beams, **fields)
    plan = Plan(images, inputs, output, model, log, mask, mask_decoder, folder, objects, engine, from_boxes)
    return run_images(ctx, request, plan)


def only_with_names(answer: AnswerOptions, inputs: ImageOptions, min_score: float | None, beams: int | None) -> None:
    """Raise UsageError for an option that says what is found, and in which pictures: with boxes that is known."""
    options = {
        "--prompt": answer.prompt,
        "--min-score": min_score,
        "--beams": beams,
        "--files-from": inputs.files_from,
        "--every": inputs.interval,
        "--frames": inputs.frames,
    }
    for flag, value in options.items():
        if value is not None:
            raise UsageError(f"--from-boxes cannot be used with {flag}", f"Give {flag} to what finds the boxes")
