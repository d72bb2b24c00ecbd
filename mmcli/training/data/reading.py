"""Reading training data, whatever format they are in: examples as they come, and what of them is bad."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mmcli.errors import InputError, UsageError
from mmcli.example import Example
from mmcli.media.naming import printable
from mmcli.training.data import formats
from mmcli.training.data.place import Place
from mmcli.training.data.rows import BadRow, Read

HOPELESS = 1000  # bad rows without a good one, after which nothing more is read
NAMED = 5  # bad rows that an error names


def read_examples(
    path: Path,
    *,
    format: str | None = None,
    media: Path | None = None,
    split: str | None = None,
    prefer: tuple[str, ...] = ("train",),
) -> Iterator[Read]:
    """The examples of a file or a folder, one at a time, and in their places the rows that are none.

    `format` is one of `formats.FORMATS` (None: it is found out), `media` a folder outside the data's own in which
    pictures and recordings may lie, `split` the one that is wanted of several (None: the first of `prefer` that there
    is). Pictures and recordings are there, and are not opened yet: see `media.opened`. Raises InputError and UsageError
    where the data as a whole cannot be read.
    """
    return formats.find(Place(Path(path), media, split, prefer), format)


@dataclass(frozen=True)
class Allowance:
    """How many rows may be bad: so many, or a share of them all."""

    count: int | None = None
    share: float = 0.1

    @classmethod
    def of(cls, text: str) -> "Allowance":
        """From "20" or "5%". Raises UsageError for anything else."""
        try:
            if text.endswith("%"):
                share = float(text[:-1]) / 100
                if 0 <= share <= 1:
                    return cls(None, share)
            elif int(text) >= 0:
                return cls(int(text))
        except ValueError:
            pass
        raise UsageError(f"--max-bad {printable(text)} is neither a number nor a share", "Write 20 or 5%")

    def allows(self, bad: int, rows: int) -> bool:
        """Whether so many of the rows may be bad."""
        return bad <= self.count if self.count is not None else bad <= self.share * rows

    def __str__(self) -> str:
        return f"{self.count:,}" if self.count is not None else f"{100 * self.share:g}%"


@dataclass
class Data:
    """What was read of some data."""

    examples: list[Example] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)

    def require(self, allowed: Allowance, name: str) -> None:
        """Raise InputError where nothing was good, or more is bad than may be; it names the first bad rows."""
        rows = len(self.examples) + len(self.bad)
        named = "; ".join(printable(str(one)) for one in self.bad[:NAMED])
        more = f"; and {len(self.bad) - NAMED:,} more" if len(self.bad) > NAMED else ""
        if not rows:
            raise InputError(f"{name} holds no rows", "Name other data")
        if not self.examples:
            raise InputError(f"No row of {name} can be used: {named}{more}")
        if not allowed.allows(len(self.bad), rows):
            what = f"{len(self.bad):,} of {rows:,} rows of {name} are bad, and {allowed} may be: {named}{more}"
            raise InputError(what, "Mend them, or allow more with --max-bad")


def gather(rows: Iterable[Read], allowed: Allowance, name: str) -> Data:
    """All examples of some rows, with the bad ones beside them. Raises as `Data.require`."""
    data = Data()
    for row in rows:
        if isinstance(row, BadRow):
            data.bad.append(row)
            if len(data.bad) == HOPELESS and not data.examples:
                break
        else:
            data.examples.append(row)
    data.require(allowed, name)
    return data
