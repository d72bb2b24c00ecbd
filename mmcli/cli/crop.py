"""`mmcli crop`: what was found, as pictures of its own."""

from collections import Counter
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated

import typer

from mmcli.cli.arguments import Results
from mmcli.cli.environment import Environment
from mmcli.cli.help import Command, plain
from mmcli.cli.inputs import found_in
from mmcli.cli.options import LogOptions, Overwrite, option, spread
from mmcli.cli.start import begin
from mmcli.errors import ExitCode, InputError
from mmcli.media.naming import printable

if TYPE_CHECKING:
    from PIL import Image

    from mmcli.batch.found import FoundSource
    from mmcli.media.sources import Source
    from mmcli.output.files import Destination

app = plain()
EPILOG = """\
Examples:

  mmcli detect "cat" photos/ --json | mmcli crop -
  mmcli segment "cat" photos/ -o found/ && mmcli crop found/ --cutout -o cats/
  mmcli detect "person" photos/ --json | mmcli crop - -o people/ | mmcli caption --files-from -

Prints the name of each picture that it writes. Numbers follow the order of the objects: the first one in
photos/a.jpg, a cat, becomes crops/photos/a-1-cat.jpg."""


@app.command(cls=Command, epilog=EPILOG)
@spread
def command(
    ctx: typer.Context,
    results: Results = None,
    output: Annotated[
        str, option("Output", "--output", "-o", metavar="FOLDER", help="Where the pictures go (default crops/).")
    ] = "crops",
    cutout: Annotated[
        bool, option("Output", "--cutout", help="The objects alone on transparency, where there are masks.")
    ] = False,
    overwrite: Overwrite = False,
    *,
    log: LogOptions,
) -> int:
    """Cut the objects that were found out of their pictures and save each as a picture of its own."""
    environment = begin(ctx, log)
    from mmcli.batch.frames import with_frames
    from mmcli.media.sampling import Sampling
    from mmcli.output.files import IMAGE_SUFFIXES, Destination
    from mmcli.output.ledger import Ledger

    found = found_in(environment, results)
    ledger = Ledger((), [name for name in results or () if name != "-"])
    kept = () if cutout else tuple(IMAGE_SUFFIXES)
    place = Destination("--output", output and f"{output}/", True, kept=kept, overwrite=overwrite, ledger=ledger)
    cutter = _Cutter(environment, place, cutout)
    failed = 0
    for source in with_frames(found, Sampling()):
        ledger.reads(source)
        try:
            cutter.cut(source)
        except InputError as error:
            failed += 1
            environment.fail(error, source.name)
    environment.note(f"mmcli: {cutter.written} picture{'s' * (cutter.written != 1)} in {output}")
    return ExitCode.SOME_FAILED if failed else ExitCode.OK


class _Cutter:
    """Writes the objects of one input after another, and their files' names."""

    def __init__(self, environment: Environment, place: "Destination", cut_out: bool):
        self._environment, self._place, self._cut_out = environment, place, cut_out
        self._numbers: Counter[PurePosixPath] = Counter()  # objects of each input so far: it may come again
        self.written = 0

    def cut(self, source: "Source") -> None:
        """Raises InputError where an input cannot be read or written, or where one of its objects lies beside it."""
        from mmcli.batch.found import FoundSource
        from mmcli.boxes import inside
        from mmcli.output.crops import crops

        source.check()
        if not isinstance(source, FoundSource) or not source.objects:
            return
        image = _image(source)
        source.check_size(*image.size)
        first = self._numbers[source.relative] + 1
        self._numbers[source.relative] += len(source.objects)
        there = tuple(found for found in source.objects if inside(found.box, *image.size))
        bare = sum(found.mask is None for found in there) if self._cut_out else 0
        record = replace(source.records[0], objects=there)
        for part, one in crops(image, record, cut_out=self._cut_out, first=first):
            self._place.save(source, one, part)
            self._environment.write(f"{self._place.path(source, part)}\n")
            self.written += 1
        if bare:
            some = "1 object has" if bare == 1 else f"{bare} objects have"
            self._environment.note(f"mmcli: {source.name}: {some} no mask (mmcli segment --from-boxes makes them)")
        if lost := [found.label for found in source.objects if found not in there]:
            raise InputError(f'"{lost[0]}" lies outside {printable(source.name)}, or is a point', "Find it again")


def _image(source: "FoundSource") -> "Image.Image":
    """The image of an input in full size. Raises InputError."""
    from mmcli.batch.frames import FrameSource
    from mmcli.media.image import load_image

    return source.full().image if isinstance(source, FrameSource) else load_image(source).image
