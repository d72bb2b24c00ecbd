"""Results as people and programs want them: text or JSON on stdout, pictures in files or in the terminal."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from mmcli.cli.environment import Environment
from mmcli.cli.options import OutputOptions
from mmcli.errors import UsageError
from mmcli.output.results import own_suffixes, results
from mmcli.output.writers import WRITERS, writer_of, writers_for

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

    from mmcli.media.image import Picture
    from mmcli.media.sources import Source
    from mmcli.output.schema import Record

SUFFIXES = (*(writer.suffix for writer in writers_for("image")), ".tsv")  # the text of objects is a table
FAULTS_TOLD = 3  # a model that loops makes dozens
CUT = "the answer was cut off; raise --max-tokens to let it end"


class Renderer:
    """Writes the result of one picture after another.

    Raises UsageError at once where an option cannot be met: a file named for many pictures, a missing extra.
    """

    def __init__(
        self,
        environment: Environment,
        output: OutputOptions,
        mask: str | None,
        several: bool,
        sources: "Sequence[Source]" = (),
        others: Sequence[str] = (),
    ):
        """`sources`, and `others` by name, are the files that the run reads: none of them is written over."""
        self.environment = environment
        self.output = output
        named = writer_of(output.output, "image") or WRITERS["text"]
        self.writer = WRITERS["jsonl"] if output.json else named
        if several and not self.writer.joins:
            what = f"A {self.writer.name} document holds one record, but there are several pictures"
            raise UsageError(what, "Call it .jsonl")
        self.overlay = self.mask = self.ledger = None
        if any(named is not None for named in (output.overlay, mask, output.output)):
            from mmcli.output.files import LOSSLESS_SUFFIXES, PICTURE_SUFFIXES, Destination
            from mmcli.output.ledger import Ledger

            self.ledger = Ledger(sources, others)
            common: dict[str, Any] = {"ledger": self.ledger, "overwrite": output.overwrite}
            if output.overlay is not None:
                kept = tuple(PICTURE_SUFFIXES)
                self.overlay = Destination("--overlay", output.overlay, several, kept=kept, **common)
            if mask is not None:
                self.mask = Destination("--mask", mask, several, LOSSLESS_SUFFIXES, **common)
        self.results = results(
            environment.write,
            output.output,
            several,
            self.ledger,
            suffix=self.writer.suffix,
            suffixes=own_suffixes(output.output) if output.json else SUFFIXES,
            overwrite=output.overwrite,
        )
        self.several = several and not self.results.in_folder
        self.show = output.show and can_show(environment)
        self._told: set[str] = set()  # what is said once in a run

    @property
    def needs_picture(self) -> bool:
        """Whether `files` and `shown` will ask for the picture in full size."""
        return self.overlay is not None or self.show

    @property
    def json(self) -> bool:
        """Whether whole records are written, of failed inputs too."""
        return self.writer.whole

    def text(self, record: "Record", source: "Source | None" = None) -> None:
        """Write the record where results go, in the form that was asked for. Raises what `Results.write` does."""
        if self.results.in_folder and record.kind == "failed":
            return  # the file of an input holds its result
        self.results.write(self.writer.write(record, self.several), source)

    def notes(self, record: "Record", cut: str = CUT, once: Sequence[str] = ()) -> None:
        """Say on stderr what the text does not tell: remarks on the picture, faults of the answer, `cut` if it was.

        Those of the notes that are said `once` are the same for every picture of a run.
        """
        for note in once:
            if note not in self._told:
                self._told.add(note)
                self.environment.note(f"mmcli: {note}")
        name = record.source if isinstance(record.source, str) else ""
        own = replace(record, notes=tuple(note for note in record.notes if note not in once))
        for note in remarks(own, cut):
            self.environment.note(f"mmcli: {name}: {note}" if name else f"mmcli: {note}")

    def files(self, source: "Source", record: "Record", full: "Callable[[], Picture] | None") -> None:
        """Write the files that were asked for. Raises InputError where one cannot be written.

        `full` reads the picture in full size, which is done only where there is something to draw or to show.
        A mask without a mask's object, and a drawn picture without anything drawn in, would look like results: they
        are not written, and that is said.
        """
        if self.mask is not None:
            if any(found.mask is not None for found in record.objects):
                from mmcli.output.masks import mask_picture

                self.mask.save(source, mask_picture(record))
            else:
                self._not_written(record, self.mask.path(source), "no mask" if record.objects else "nothing")
        if self.overlay is not None and not record.objects:
            self._not_written(record, self.overlay.path(source), "nothing")
        if full is None or not (record.objects or self.show):
            return
        from mmcli.output.overlay import draw

        drawn = draw(full().image, record)
        if self.overlay is not None and record.objects:
            self.overlay.save(source, drawn)
        if self.show:
            show(self.environment, drawn)

    def _not_written(self, record: "Record", path: "Path", found: str) -> None:
        """Say that a file does not come, and that an older one at its place is no result of this run."""
        old = "; the older file there is left as it is" if path.is_file() else ""
        name = record.source if isinstance(record.source, str) else ""
        self.environment.note(f"mmcli: {name}: {found} was found, so {path} was not written{old}")


def remarks(record: "Record", cut: str = CUT) -> list[str]:
    """What a reader of the text alone would miss; of many faults the first few. `cut` is said of a cut answer."""
    faults = list(record.problems)
    if len(faults) > FAULTS_TOLD:
        faults = [*faults[:FAULTS_TOLD], f"{len(faults) - FAULTS_TOLD} more faults of the answer (--json has them)"]
    return [*record.notes, *faults, *([cut] if record.truncated and cut else [])]


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
