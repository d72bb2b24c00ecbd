"""`mmcli segment`."""

from typing import Annotated

import typer

from mmcli.cli.arguments import Beams, Images, Labels, MinScore
from mmcli.cli.engine import EngineOptions
from mmcli.cli.folders import FolderOptions, ObjectOptions
from mmcli.cli.options import AnswerOptions, ImageOptions, LogOptions, ModelOptions, OutputOptions, option, spread
from mmcli.hub.known import IMAGE_MODEL
from mmcli.models.offered import such_as

NAME = "segment"
EPILOG = f"""\
Examples:

  mmcli segment "cat" photo.jpg --mask cat.png
  mmcli segment "cat ; dog" photos/ --mask masks/ --overlay overlays/
  mmcli segment "cat" photo.jpg --json | jq '.objects[].mask'

A mask in a record is COCO run-length encoding of the whole picture as it is displayed; pycocotools
reads it. The bundled {IMAGE_MODEL} brings the decoder of its mask tokens. For models that do not, such as
{such_as("masks", bundled=False)}, the published one is fetched at first use, an 8 MB file;
--mask-decoder names a copy of it."""


@spread
def command(
    ctx: typer.Context,
    labels: Labels,
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

    fields = request_fields(answer, output) | sifting(objects)
    request = SegmentRequest(words=labels, min_score=min_score, beams=beams, **fields)
    plan = Plan(images or [], inputs, output, model, log, mask, mask_decoder, folder, objects, engine)
    return run_images(ctx, request, plan)
