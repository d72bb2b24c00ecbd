"""Results as people and programs want them: text or JSON on stdout, images in files or in the terminal."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmcli.cli.environment import Environment
from mmcli.cli.folders import FolderOptions, ObjectOptions, chosen_forms, is_folder
from mmcli.cli.options import OutputOptions
from mmcli.errors import InputError, UsageError
from mmcli.output.results import own_suffixes, results
from mmcli.output.writers import WRITERS, writer_of, writers_for

if TYPE_CHECKING:
    from PIL import Image

    from mmcli.media.image import LoadedImage
    from mmcli.media.sources import Source
    from mmcli.output.files import Destination
    from mmcli.output.ledger import Ledger
    from mmcli.output.results import Results
    from mmcli.output.schema import Record
    from mmcli.output.writers import Writer

SUFFIXES = (*(writer.suffix for writer in writers_for("image")), ".tsv")  # the text of objects is a table
FAULTS_SHOWN = 3  # a model that loops makes dozens
CUT = "the answer was cut off; raise --max-tokens to let it end"


class Renderer:
    """Writes the result of one image after another.

    Raises UsageError at once where an option cannot be met: a file named for many images, a missing extra.
    """

    def __init__(
        self,
        environment: Environment,
        output: OutputOptions,
        mask: str | None,
        several: bool,
        sources: "Sequence[Source]" = (),
        others: Sequence[str] = (),
        folder: FolderOptions | None = None,
        objects: ObjectOptions | None = None,
        labels: Sequence[str] = (),
        task: str = "",
        places: bool = False,
    ):
        """`sources`, and `others` by name, are the files that the run reads: none of them is written over.

        `labels` are what the `task` is to find; with `places` its text is a line for each, and none for nothing.
        """
        self.environment = environment
        self.output, self.folder, self.objects = output, folder or FolderOptions(), objects or ObjectOptions()
        self.labels, self.places = labels, places
        in_folder = is_folder(output.output)
        named = writer_of(output.output, "image")
        self.forms = chosen_forms(self.folder.format, output.json, named, folder=in_folder, task=task)
        self.writer = self.forms.writers[0] if self.forms.writers else WRITERS["text"]
        if task != "caption" and any(writer.video for writer in self.forms.writers):
            raise UsageError("Subtitles hold captions, and only mmcli caption writes those", "Choose another --format")
        one_video = self.writer.video is not None and len(sources) == 1
        if several and not (self.writer.joins or in_folder or one_video):
            what = f"A {self.writer.name} document holds one record, but there are several pictures"
            raise UsageError(what, "Name a folder with --output, or choose --format text or jsonl")
        self.ledger: Ledger | None = None
        self.overlay: Destination | None = None
        self.mask: Destination | None = None
        self.crop: Destination | None = None
        self.cutout: Destination | None = None
        self.copy: Destination | None = None
        self._open(mask, several, sources, others)
        is_named = output.json or self.folder.format is not None
        suffixes = own_suffixes(output.output) if is_named and not in_folder else SUFFIXES
        self._results = [
            results(
                environment.write,
                output.output,
                several,
                self.ledger,
                suffix=writer.suffix,
                suffixes=suffixes,
                overwrite=output.overwrite,
                head=writer.head("image") if writer.head else "",
            )
            for writer in self.forms.writers or (self.writer,)
        ]
        self.results: Results = self._results[0]
        self.several = several and not self.results.in_folder
        self.show = output.show and can_show(environment)
        self._noted: set[str] = set()  # what is said once in a run

    def _open(self, mask: str | None, several: bool, sources: "Sequence[Source]", others: Sequence[str]) -> None:
        """The places of the files beside the results."""
        output, objects = self.output, self.objects
        places = (output.overlay, mask, output.output, objects.crop, objects.cutout, objects.copy)
        if all(place is None for place in places) and not self.folder.sidecar:
            return
        from mmcli.output.files import IMAGE_SUFFIXES, LOSSLESS_SUFFIXES, Destination
        from mmcli.output.ledger import Ledger

        self.ledger = Ledger(sources, others)
        common: dict[str, Any] = {"ledger": self.ledger, "overwrite": output.overwrite}
        kept = tuple(IMAGE_SUFFIXES)

        def place(option: str, argument: str | None, **more: Any) -> "Destination | None":
            return None if argument is None else Destination(option, argument, several, **more, **common)

        self.overlay = place("--overlay", output.overlay, kept=kept)
        self.copy = place("--copy", objects.copy, kept=kept)
        self.mask = place("--mask", mask, suffixes=LOSSLESS_SUFFIXES)
        self.crop = place("--crop", objects.crop and f"{objects.crop}/", kept=kept)
        self.cutout = place("--cutout", objects.cutout and f"{objects.cutout}/")

    @property
    def needs_image(self) -> bool:
        """Whether `files` and `shown` will ask for the image in full size."""
        return self.show or any((self.overlay, self.copy, self.crop, self.cutout))

    @property
    def json(self) -> bool:
        """Whether whole records are written, of failed inputs too."""
        return self.writer.whole

    def text(self, record: "Record", source: "Source | None" = None) -> None:
        """Write the record where results go, in the form that was asked for. Raises what `Results.write` does."""
        if self.results.in_folder and record.kind == "failed":
            return  # the file of an input holds its result
        if record.time is not None and self.holds_videos:
            return  # written with the others of its video
        if record.kind == "image" and self.forms.writers and all(writer.video for writer in self.forms.writers):
            raise InputError(f"{record.source} is no video, so it has no subtitles", "Choose another --format")
        for writer, place in zip(self.forms.writers, self._results, strict=False):
            if writer.video is None:  # subtitles are of videos
                place.write(self._text(writer, record), source)

    def _text(self, writer: "Writer", record: "Record") -> str:
        if self.objects.count and writer.name == "text" and record.kind != "failed":
            from mmcli.output.writers.text import to_counts

            return to_counts(record, self.labels, self.several)
        if self.places and writer.name == "text" and not record.objects:
            return ""
        return writer.write(record, self.several)

    @property
    def holds_videos(self) -> bool:
        """Whether the results of a video are written when all of its frames are there."""
        return self.results.in_folder or any(writer.video for writer in self.forms.writers)

    def video(self, source: "Source", records: "Sequence[Record]", end: float) -> None:
        """Write the records of a video's frames, a file for each form; the video ends at `end` seconds."""
        if self.forms.datasets:
            self.environment.note(f"mmcli: {source.name}: a video is in no data set ({', '.join(self.forms.datasets)})")
        for writer, place in zip(self.forms.writers, self._results, strict=False):
            if writer.video is not None:
                place.write(writer.video(records, end), source)
            elif writer.joins:
                place.write("".join(self._text(writer, record) for record in records), source)
            else:
                what = f"{source.name} is a video of many records, and a {writer.name} document holds one"
                raise InputError(what, "Use --format jsonl")

    def notes(self, record: "Record", cut: str = CUT, once: Sequence[str] = ()) -> None:
        """Say on stderr what the text does not tell: remarks on the image, faults of the answer, `cut` if it was.

        Those of the notes that are said `once` are the same for every image of a run.
        """
        for note in once:
            if note not in self._noted:
                self._noted.add(note)
                self.environment.note(f"mmcli: {note}")
        name = record.source if isinstance(record.source, str) else ""
        own = replace(record, notes=tuple(note for note in record.notes if note not in once))
        for note in remarks(own, cut):
            self.environment.note(f"mmcli: {name}: {note}" if name else f"mmcli: {note}")

    def files(self, source: "Source", record: "Record", full: "Callable[[], LoadedImage] | None") -> None:
        """Write the files that were asked for. Raises InputError where one cannot be written.

        `full` reads the image in full size, which is done only where there is something to draw or to show.
        A mask without a mask's object, and a drawn image without anything drawn in, would look like results: they
        are not written, and that is said.
        """
        if self.mask is not None:
            if any(found.mask is not None for found in record.objects):
                from mmcli.output.masks import mask_image

                self.mask.save(source, mask_image(record))
            else:
                self.not_written(record, self.mask.path(source), "no mask" if record.objects else "nothing")
        if self.overlay is not None and not record.objects and record.time is None:
            self.not_written(record, self.overlay.path(source), "nothing")
        if self.folder.sidecar and record.time is None:
            self.beside(source, [record])
        if full is None or not (record.objects or self.show or self.copy):
            return
        self._images(source, record, full().image)

    def _images(self, source: "Source", record: "Record", image: "Image.Image") -> None:
        """Write and show what is made of the image in full size: first what is cut out of it, then drawings."""
        image = self._hidden(image, record)
        for place, cut_out in ((self.crop, False), (self.cutout, True)):
            if place is not None:
                from mmcli.output.crops import crops

                for part, one in crops(image, record, cut_out=cut_out):
                    place.save(source, one, part)
        if self.copy is not None:
            from mmcli.output.redaction import is_named

            self.copy.save(source, image)
            if self.hides and not any(is_named(found, self._secret) for found in record.objects):
                # Else the copy would be taken for one in which nothing can be seen.
                self.environment.note(f"mmcli: {source.name}: nothing of that was found, so its copy hides nothing")
        overlay = self.overlay if record.objects and record.time is None else None  # of videos there is one for all
        if not self.show and overlay is None:
            return
        drawn = self._draw(image, record)
        if overlay is not None:
            overlay.save(source, drawn)
        if self.show:
            show(self.environment, drawn)

    def drawn(self, image: "Image.Image", record: "Record") -> "Image.Image":
        """An image with the objects of its record drawn in, and hidden where that was asked for."""
        return self._draw(self._hidden(image, record), record)

    def _hidden(self, image: "Image.Image", record: "Record") -> "Image.Image":
        if not self._secret:
            return image
        from mmcli.output.redaction import redact

        return redact(image, record, blur=self.objects.blur or [], pixelate=self.objects.pixelate or [])

    @property
    def hides(self) -> bool:
        """Whether something is to be hidden."""
        return bool(self._secret)

    @property
    def _secret(self) -> "list[str]":
        """Labels of what is to be hidden."""
        return [*(self.objects.blur or []), *(self.objects.pixelate or [])]

    def _draw(self, image: "Image.Image", record: "Record") -> "Image.Image":
        from mmcli.output.overlay import draw

        if self._secret:  # a box with its name around it would tell what is hidden
            from mmcli.output.redaction import is_named

            seen = tuple(found for found in record.objects if not is_named(found, self._secret))
            record = replace(record, objects=seen)
        return draw(image, record)

    def beside(self, source: "Source", records: "Sequence[Record]") -> None:
        """Write the text into a file beside that of an image or a video, which has several. InputError without one."""
        from mmcli.output.files import write_beside
        from mmcli.output.writers.text import to_text

        assert self.ledger is not None
        data = "".join(map(to_text, records)).encode("utf-8", "surrogateescape")
        write_beside(source, ".txt", data, self.ledger, overwrite=self.output.overwrite)

    def not_written(self, record: "Record", path: "Path", found: str) -> None:
        """Say that a file does not come, and that an older one at its place is no result of this run."""
        old = "; the older file there is left as it is" if path.is_file() else ""
        name = record.source if isinstance(record.source, str) else ""
        self.environment.note(f"mmcli: {name}: {found} was found, so {path} was not written{old}")


def remarks(record: "Record", cut: str = CUT) -> list[str]:
    """What a reader of the text alone would miss; of many faults the first few. `cut` is said of a cut answer."""
    faults = list(record.problems)
    if len(faults) > FAULTS_SHOWN:
        faults = [*faults[:FAULTS_SHOWN], f"{len(faults) - FAULTS_SHOWN} more faults of the answer (--json has them)"]
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
    """Draw an image into the terminal, in its own graphics protocol or else with coloured blocks."""
    from rich.console import Console
    from textual_image.renderable import Image as Renderable  # asks the terminal what it can, as it is imported

    console = Console(file=environment.stdout, markup=False, highlight=False)
    try:
        with environment.aside():
            console.print(Renderable(image, width=min(80, console.width), height="auto"))
    except ArithmeticError:  # a terminal that tells no size
        environment.note("mmcli: --show: this terminal does not tell its size")
