"""An answer's text as it is written, for programs that read it piece by piece."""

from collections.abc import Generator, Iterator
from contextlib import closing
from typing import TYPE_CHECKING

from mmcli.errors import UsageError
from mmcli.tasks.pieces import Pieces

if TYPE_CHECKING:
    from mmcli.output.schema import Record
    from mmcli.types import Completion


class Stream:
    """An answer's text in pieces, as they are written; `record` is there when all of them were taken."""

    def __init__(self, pieces: "Generator[str, None, Record]"):
        self._pieces = pieces
        self._record: Record | None = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            return next(self._pieces)
        except StopIteration as end:
            self._record = self._record or end.value
            raise StopIteration from None

    def close(self) -> None:
        """Break the answer off, as if it had not been asked for; nothing where all of it has come."""
        self._pieces.close()

    @property
    def record(self) -> "Record":
        """The whole answer. Raises UsageError before its end."""
        if self._record is None:
            raise UsageError("The answer has not come to its end", "Take all of its pieces first")
        return self._record


def texts(
    asking: "Generator[tuple[int, int], None, tuple[Completion, Record]]", pieces: Pieces
) -> "Generator[str, None, Record]":
    """The text of each token → the answer's record."""
    with closing(asking):
        while True:
            try:
                _, token = next(asking)
            except StopIteration as end:
                record: Record = end.value[1]
                return record
            if piece := pieces.add(token):
                yield piece
