"""Work that needs no model and ends the process that does it: once, or whenever it comes to a certain input."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mmcli.batch.outcome import Outcome
from mmcli.batch.work import Choice, Work
from mmcli.errors import InputError, ModelError
from mmcli.hub.known import IMAGE_MODEL
from mmcli.media.sources import Source, expand
from mmcli.output.schema import Record

CHOICE = Choice(IMAGE_MODEL, IMAGE_MODEL, device="cpu")


@dataclass(frozen=True)
class Fragile(Work):
    """The content of a file is its text. `once` at the first time and `always` every time end the process."""

    once: str | None = None
    always: str | None = None
    refused: str | None = None  # with a ModelError

    def outcomes(self, sources: Iterable[Source], load, able) -> Iterator[Outcome]:
        for source in sources:
            if source.name == self.once and not (mark := Path(f"{source.path}.mark")).exists():
                mark.touch()
                os._exit(9)
            if source.name == self.always:
                os.kill(os.getpid(), 9)
            if source.name == self.refused:
                raise ModelError("It will not", "Ask another")
            yield self._outcome(source)

    def _outcome(self, source: Source) -> Outcome:
        try:
            return Outcome(
                source, Record(task="caption", source=source.name, model="none", text=source.read().decode())
            )
        except InputError as error:
            return self.failed(source, error)

    def failed(self, source: Source, error: InputError) -> Outcome:
        return Outcome(source, Record(task="caption", source=source.name, model="none", error=str(error)), error)


def texts(folder: Path, count: int) -> list[Source]:
    """Sources called 00.txt, 01.txt, …, each with its number in it, and one that does not exist."""
    os.chdir(folder)
    names = [f"{number:02}.txt" for number in range(count)]
    for name in names:
        (folder / name).write_text(f"this is {name}")
    return list(expand([*names, "nowhere.txt"], extensions=frozenset({".txt"})))
