"""Results as people and programs want them: text or JSON on stdout, pictures in files or in the terminal."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from mmcli.cli.environment import Environment
from mmcli.cli.options import OutputOptions
from mmcli.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

    from mmcli.media.sources import Source

Record = dict[str, Any]

FAULTS_TOLD = 3  # a model that loops makes dozens
CUT = "the answer was cut off; raise --max-tokens to let it end"


class Renderer:
    """Writes the result of one picture after another.

    Raises UsageError at once where an option cannot be met: a file named for many pictures, a missing extra.
    """

    def __init__(self, environment: Environment, output: OutputOptions, mask: str | None, several: bool):
        self.environment = environment
        self.output = output
        self.several = several
        self.overlay = self.mask = None
        if output.overlay is not None or mask is not None:
            from mmcli.output.files import LOSSLESS_SUFFIXES, Destination

            if output.overlay is not None:
                self.overlay = Destination("--overlay", output.overlay, several)
            if mask is not None:
                self.mask = Destination("--mask", mask, several, LOSSLESS_SUFFIXES)
        self.show = output.show and can_show(environment)
        self._told: set[str] = set()  # what is said once in a run

    @property
    def needs_picture(self) -> bool:
        """Whether `files` and `shown` will ask for the picture in full size."""
        return self.overlay is not None or self.show

    def text(self, record: Record) -> None:
        """Write the record to stdout, as text or as a line of JSON."""
        if self.output.json:
            from mmcli.output.record import to_json_line

            self.environment.write(to_json_line(record))
        else:
            from mmcli.output.text import to_text

            self.environment.write(to_text(record, self.several))

    def notes(self, record: Record, cut: str = CUT, once: Sequence[str] = ()) -> None:
        """Say on stderr what the text does not tell: remarks on the picture, faults of the answer, `cut` if it was.

        Those of the notes that are said `once` are the same for every picture of a run.
        """
        for note in once:
            if note not in self._told:
                self._told.add(note)
                self.environment.note(f"mmcli: {note}")
        name = record["source"] if isinstance(record["source"], str) else ""
        own = record | {"notes": [note for note in record["notes"] if note not in once]}
        for note in remarks(own, cut):
            self.environment.note(f"mmcli: {name}: {note}" if name else f"mmcli: {note}")

    def files(self, source: "Source", record: Record, image: "Image.Image | None") -> None:
        """Write the files that were asked for. Raises InputError where one cannot be written.

        A mask without a mask's object, and a drawn picture without anything drawn in, would look like results: they
        are not written, and that is said.
        """
        from mmcli.output.files import save_picture

        if self.mask is not None:
            path = self.mask.path(source)
            if any("mask" in found for found in record["objects"]):
                from mmcli.output.masks import mask_picture

                save_picture(mask_picture(record), path)
            else:
                self._not_written(record, path, "no mask to write")
        if image is None:
            return
        from mmcli.output.overlay import draw

        drawn = draw(image, record)
        if self.overlay is not None:
            path = self.overlay.path(source)
            if record["objects"]:
                save_picture(drawn, path)
            else:
                self._not_written(record, path, "nothing to draw in")
        if self.show:
            show(self.environment, drawn)

    def _not_written(self, record: Record, path: "Path", why: str) -> None:
        """Say that a file does not come, and that an older one at its place is no result of this run."""
        there = f"; the older file {path} is left as it is" if path.is_file() else f", so there is no {path}"
        name = record["source"] if isinstance(record["source"], str) else ""
        self.environment.note(f"mmcli: {name}: {why}{there}")


def remarks(record: Record, cut: str = CUT) -> list[str]:
    """What a reader of the text alone would miss; of many faults the first few. `cut` is said of a cut answer."""
    faults = record["problems"]
    if len(faults) > FAULTS_TOLD:
        faults = [*faults[:FAULTS_TOLD], f"{len(faults) - FAULTS_TOLD} more faults of the answer (--json has them)"]
    return [*record["notes"], *faults, *([cut] if record["truncated"] and cut else [])]


def can_show(environment: Environment) -> bool:
    """Whether `--show` makes sense here: it needs a terminal, and raises UsageError where its extra is missing."""
    if not environment.stdout_tty:
        environment.log("mmcli: --show is for terminals; the output is none")
        return False
    if find_spec("textual_image") is None:
        raise UsageError("--show needs the extra package textual-image", "Install it: pip install 'mmcli[show]'")
    return True


def show(environment: Environment, image: "Image.Image") -> None:
    """Draw a picture into the terminal, in its own graphics protocol or else with coloured blocks."""
    from rich.console import Console
    from textual_image.renderable import Image as Renderable  # asks the terminal what it can, as it is imported

    console = Console(file=environment.stdout, markup=False, highlight=False)
    try:
        with environment.aside():
            console.print(Renderable(image, width=min(80, console.width), height="auto"))
    except ArithmeticError:  # a terminal that tells no size
        environment.note("mmcli: --show: this terminal does not tell its size")
