"""`mmcli caption`."""

import typer

from mmcli.cli.arguments import Images
from mmcli.cli.options import AnswerOptions, ModelOptions, OutputOptions, PictureOptions, TalkOptions, spread

NAME = "caption"
EPILOG = """\
Examples:

  mmcli caption photo.jpg
  mmcli caption photos/ https://example.org/cat.jpg '*.png'
  find . -name '*.jpg' -print0 | mmcli caption --files-from - --json > captions.jsonl
  curl -s https://example.org/cat.jpg | mmcli caption -
  mmcli caption photo.jpg --prompt "describe en" --max-tokens 60"""


@spread
def command(
    ctx: typer.Context,
    images: Images = None,
    *,
    pictures: PictureOptions,
    answer: AnswerOptions,
    output: OutputOptions,
    model: ModelOptions,
    talk: TalkOptions,
) -> int:
    """Say in a sentence what each picture shows.

    One picture: its caption on a line. Several: the name and the caption, one line a picture.
    """
    from mmcli.cli.pictures import Plan, request_fields, run_pictures
    from mmcli.tasks.caption import CaptionRequest

    request = CaptionRequest(**request_fields(answer, output))
    return run_pictures(ctx, request, Plan(images or [], pictures, output, model, talk))
