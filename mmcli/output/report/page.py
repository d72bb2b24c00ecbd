"""The page itself: one file that needs nothing else, with its data in it as JSON.

The template's script builds everything that comes from data as text nodes and attributes, never as markup, and the
page's own policy forbids it to ask any address for anything.
"""

from collections.abc import Iterable, Iterator
from importlib.resources import files
from typing import Any

from mmcli.output.json_text import to_json

_DATA = "/*DATA*/"


def page(entries: Iterable[dict[str, Any]], title: str, sets: tuple[str, ...] = ()) -> Iterator[str]:
    """The text of the page in parts; `sets` are the names of the two that are compared, if they are."""
    template = files("mmcli.assets").joinpath("report.html").read_text("utf-8")
    before, after = template.split(_DATA)
    yield before
    yield f'{{"title": {_json(title)}, "sets": {_json(list(sets))}, "items": ['
    for number, entry in enumerate(entries):
        yield (",\n" if number else "\n") + _json(entry)
    yield "]}"
    yield after


def _json(value: Any) -> str:
    """JSON that can stand inside a script element: `</script>` or `<!--` in it would end or change that."""
    return to_json(value).replace("<", "\\u003c")
