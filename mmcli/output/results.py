"""Where text and records go: to standard output, or where --output says."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mmcli.errors import WriteError

if TYPE_CHECKING:
    from mmcli.media.sources import Source
    from mmcli.output.drafts import Draft, Straight
    from mmcli.output.files import Destination
    from mmcli.output.ledger import Ledger

STDOUT = ("-", "/dev/stdout")


class Results:
    """Takes what a command has to say of its inputs.

    FILE gets what would have gone to standard output, and takes its place when everything is in it or the run is
    interrupted; FOLDER gets one file for each input, whole or not at all. A context, which closes FILE.
    """

    def __init__(self, write: Callable[[str], None], place: "Destination | None" = None, head: str = ""):
        """`write` is how standard output is written; `head` stands once at the beginning of each file and of that."""
        self._write = write
        self._place = place
        self._head = head
        self._file: Draft | Straight | None = None

    @property
    def in_folder(self) -> bool:
        """Whether each input has a file of its own."""
        return self._place is not None and self._place.folder

    @property
    def on_stdout(self) -> bool:
        """Whether someone may be watching."""
        return self._place is None

    def write(self, text: str, source: "Source | None" = None) -> None:
        """Write a result, in a folder the whole of `source`'s. Raises InputError or WriteError for a file."""
        text = self._head + text
        if self._place is None or not self._place.folder:
            self._head = ""
        if self._place is None:
            self._write(text)
            return
        data = text.encode("utf-8", "surrogateescape")
        if self._place.folder:
            assert source is not None  # a file in a folder is an input's
            self._place.write(source, data)
            return
        if self._file is None:
            from mmcli.output.drafts import open_draft

            self._file = open_draft(self._place.named)
        try:
            self._file.write(data)
        except WriteError as error:
            file, self._file = self._file, None
            with file:
                kept = file.rescue()
            do = f"The results before that are in {kept}; {error.do[0].lower()}{error.do[1:]}" if kept else error.do
            raise WriteError(error.what, do) from error

    def __enter__(self) -> "Results":
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            with self._file as file:
                self._file = None
                file.commit()


def results(
    write: Callable[[str], None],
    output: str | None,
    several: bool,
    ledger: "Ledger | None",
    *,
    suffix: str,
    suffixes: tuple[str, ...],
    joins: bool = True,
    what: str = "picture",
    overwrite: bool = False,
    head: str = "",
) -> Results:
    """The results of a command whose --output is `output`, or that go to `write`.

    What the rest means, and what is raised: `Destination`.
    """
    if output is None or output in STDOUT:
        return Results(write, head=head)
    from mmcli.output.files import Destination
    from mmcli.output.ledger import Ledger

    place = Destination(
        "--output",
        output,
        several,
        dict.fromkeys(suffixes, ""),
        suffix,
        what,
        joins=joins,
        overwrite=overwrite,
        ledger=ledger if ledger is not None else Ledger(),
    )
    return Results(write, place, head)


def own_suffixes(output: str | None) -> tuple[str, ...]:
    """The suffix that a file has already: where the form is given, it may be called anything."""
    return (Path(output or "").suffix.lower(),)
