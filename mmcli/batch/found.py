"""Images in which something was found already: inputs from the records of earlier runs, with their objects."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from itertools import chain, groupby

from mmcli.batch.results import Unreadable
from mmcli.errors import InputError
from mmcli.media.addresses import is_web
from mmcli.media.naming import printable, relative_place
from mmcli.media.sources import Source, one_named
from mmcli.output.record import to_dict
from mmcli.output.schema import Object, Record


@dataclass(frozen=True, kw_only=True)
class FoundSource(Source):
    """An image with the records of what was found in it, or a video with those of its frames, in the order of time."""

    records: tuple[Record, ...] = field(default=(), repr=False, compare=False)

    @property
    def objects(self) -> tuple[Object, ...]:
        """All that was found in an image."""
        return tuple(chain.from_iterable(record.objects for record in self.records))

    @property
    def models(self) -> str:
        """What found it."""
        return ", ".join(dict.fromkeys(record.model for record in self.records))

    @property
    def frames(self) -> "list[tuple[float, tuple[Record, ...]]]":
        """Of a video: the times of its frames, in seconds, with the records of each."""
        by_time = sorted(((record.time or 0.0, record) for record in self.records), key=lambda pair: pair[0])
        return [(time, tuple(own for _, own in pairs)) for time, pairs in groupby(by_time, key=lambda pair: pair[0])]

    @property
    def is_video(self) -> bool:
        return any(record.time is not None for record in self.records)

    def check_size(self, width: int, height: int) -> None:
        """Raise InputError where the image has another size than the one in which objects were found."""
        for record in self.records:
            if (record.width, record.height) != (width, height):
                was = f"{record.width} × {record.height} when objects were found in it"
                do = "Find them again in the picture as it is"
                raise InputError(f"{printable(self.name)} has {width} × {height} pixels, and {was}", do)


def found_sources(results: Iterable[Record | Unreadable], *, at_once: bool = False) -> Iterator[Source]:
    """The inputs that records are about, in the order in which they first come.

    Records of one input that follow each other make one source, and with `at_once` (which waits for the last of them)
    all of its records do. What cannot be read again is a source with that problem.
    """
    if at_once:
        together: dict[object, list[Record | Unreadable]] = {}
        for result in results:
            together.setdefault(_input_of(result), []).append(result)
        results = chain.from_iterable(together.values())
    for _, own in groupby(results, key=_input_of):
        first, *others = own
        problem = _problem(first)
        if problem is None:
            yield _source([first, *others])  # type: ignore[list-item]  # those of one input are records
        else:
            name = first.name if isinstance(first, Unreadable) else _name(first)
            yield Source(name, None, None, relative_place(name or "unnamed"), problem=problem)


def _input_of(result: Record | Unreadable) -> object:
    """A key that records of one input share; an unusable record shares its own with no other."""
    return object() if _problem(result) else result.source  # type: ignore[union-attr]  # else it would be a problem


def _problem(result: Record | Unreadable) -> InputError | None:
    """Why the input of a record cannot be read again."""
    if isinstance(result, Unreadable):
        return result
    name, do = printable(_name(result)), "Name a file that is still there"
    if result.error is not None:
        return InputError(result.error)
    if not isinstance(result.source, str):
        return InputError(f"{name or 'A question'} is no single picture", do)
    if result.source == "-":
        return InputError("A picture from standard input cannot be read again", "Save it and name the file")
    if is_web(result.source) and "***" in result.source:
        return InputError(f"{name} cannot be fetched again: records do not hold logins", "Download it first")
    if result.kind != "image" or result.width is None:
        return InputError(f"{name} is no picture in which objects are found", do)
    return None


def _name(record: Record) -> str:
    return record.source if isinstance(record.source, str) else " + ".join(record.source or ())


def _source(records: list[Record]) -> FoundSource:
    plain = one_named(str(records[0].source))
    own = {one.name: getattr(plain, one.name) for one in fields(plain) if one.init}
    facts = [[record.model, record.time, to_dict(record)["objects"]] for record in records]
    beside = hashlib.sha256(json.dumps(facts).encode("utf-8", "surrogatepass")).hexdigest()
    return FoundSource(**own | {"records": tuple(records), "beside": beside})
