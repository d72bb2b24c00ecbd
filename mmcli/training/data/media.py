"""Opening the pictures and recordings of examples, before an hour of training finds out that one is damaged."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from mmcli.batch.prefetch import prefetch
from mmcli.errors import InputError
from mmcli.example import Example
from mmcli.media.audio import open_audio
from mmcli.media.image import load_image
from mmcli.media.sources import one_named
from mmcli.training.data.rows import BadRow, Read

READ_AHEAD = 16  # examples
SMALL = 64  # pixels a side that an image is decoded to: enough to see that it is whole


def opened(rows: Iterable[Read]) -> Iterator[Read]:
    """The same rows, of which those with a damaged picture or recording, or one of another size than they say, are bad.

    Everything is decoded, a few examples ahead in threads.
    """
    seen: dict[tuple[Path, ...], str | None] = {}  # of the last ones: captions of one picture follow each other

    def fault(row: Read) -> str | None:
        if isinstance(row, BadRow):
            return None
        files = (*row.images, *row.audio)
        if files not in seen:
            if len(seen) > READ_AHEAD:
                seen.clear()
            seen[files] = _fault(row)
        return seen[files]

    for row, done in prefetch(fault, rows, depth=READ_AHEAD):
        what = done.result()
        yield row if isinstance(row, BadRow) or what is None else BadRow(row.where, what)


def _fault(example: Example) -> str | None:
    """What is wrong with the files of an example."""
    try:
        for path in example.images:
            image = load_image(one_named(str(path)), side=SMALL)
            if example.size not in (None, (image.width, image.height)):
                width, height = example.size  # type: ignore[misc]
                has = f"{image.width} × {image.height} pixels as it is displayed"
                return f"its boxes are for {width} × {height} pixels, and {path.name} has {has}"
        for path in example.audio:
            with open_audio(one_named(str(path))) as reader:
                for _ in reader:
                    pass
    except InputError as error:
        return error.what
    return None
